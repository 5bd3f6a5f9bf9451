# `vagrant …` as a person types it: swarmer is asked for the plan, and to prepare the machines before they are made.
# Once there is a cluster, Vagrant begins again with the same words, and with its state in the cluster's own folder,
# so that `swarmer up` and `vagrant up` are one, and `swarmer down` leaves nothing.
require "fileutils"
require "json"
require "open3"
require "rbconfig"

module SwarmerHooks
  ROOT = File.expand_path("..", __dir__)
  SWARMER = File.join(ROOT, ".venv/bin/swarmer")
  COMMAND = ARGV.find { |word| !word.start_with?("-") }

  # The plan of the cluster of servers.yml. Does not return when there is one already.
  def self.plan
    at_exit { remove_unused_state }
    abort "swarmer is not installed here; `make setup STACK=vagrant` in #{ROOT} does it" unless File.executable?(SWARMER)
    words = ["vagrant", "plan", "--stack", "vagrant", "--servers", ENV["SWARMER_SERVERS"] || File.join(ROOT, "servers.yml")]
    words << "--prepare" if ["up", "reload"].include?(COMMAND)
    output, status = Open3.capture2(provider, SWARMER, *words)
    exit status.exitstatus || 1 unless status.success?
    plan = JSON.parse(output)
    begin_again(plan) if File.exist?(plan["file"])
    plan
  end

  # What a person said here of the provider; else swarmer chooses as Vagrant would.
  def self.provider
    given = ARGV.each_cons(2).find { |word, _| word == "--provider" }&.last
    given ||= ARGV.map { |word| word[/\A--provider=(.+)/, 1] }.compact.first
    given ? { "VAGRANT_DEFAULT_PROVIDER" => given } : {}
  end

  def self.begin_again(plan)
    remove_unused_state
    environment = {
      "SWARMER_VAGRANT_PLAN" => plan["file"],
      "SWARMER_VAGRANT_MANUAL" => "1",
      "VAGRANT_DOTFILE_PATH" => plan["state"],
      "VAGRANT_DEFAULT_PROVIDER" => plan["provider"],
      "VAGRANT_EXPERIMENTAL" => plan["features"],
    }
    exec(environment, RbConfig.ruby, $PROGRAM_NAME, *ARGV)
  end

  # Vagrant makes the folder before it reads the Vagrantfile; no machine was ever made from it.
  def self.remove_unused_state
    state = File.join(__dir__, ".vagrant")
    FileUtils.rm_rf(state) if Dir.glob(File.join(state, "machines/*/*/id")).empty?
  end

  # When `vagrant destroy` has destroyed the last machine, what swarmer had prepared goes as well.
  def self.clean_up_after(plan)
    return unless COMMAND == "destroy"
    at_exit do
      machines = Dir.glob(File.join(plan["state"], "machines/*/*/id"))
      system(SWARMER, "down", plan["cluster"]) if machines.empty?
    end
  end
end
