# Hooks for `vagrant …` run by the user: swarmer provides the plan, and prepares the machines before they are created.
# Once the cluster exists, Vagrant is restarted with the same arguments and with its state in the cluster's own folder,
# so that `swarmer up` and `vagrant up` are equivalent, and `swarmer down` leaves nothing behind.
require "fileutils"
require "json"
require "open3"
require "rbconfig"

module SwarmerHooks
  ROOT = File.expand_path("..", __dir__)
  SWARMER = File.join(ROOT, ".venv/bin/swarmer")
  COMMAND = ARGV.find { |word| !word.start_with?("-") }

  # The plan for the cluster of servers.yml. If the cluster exists, this restarts Vagrant and does not return.
  def self.plan
    at_exit { remove_unused_state }
    abort "swarmer is not installed; run `make setup STACK=vagrant` in #{ROOT}" unless File.executable?(SWARMER)
    words = ["vagrant", "plan", "--stack", "vagrant", "--servers", ENV["SWARMER_SERVERS"] || File.join(ROOT, "servers.yml")]
    words << "--prepare" if ["up", "reload"].include?(COMMAND)
    output, status = Open3.capture2(provider, SWARMER, *words)
    exit status.exitstatus || 1 unless status.success?
    plan = JSON.parse(output)
    restart_vagrant(plan) if File.exist?(plan["file"])
    plan
  end

  # The provider given on the command line; otherwise swarmer chooses as Vagrant would.
  def self.provider
    given = ARGV.each_cons(2).find { |word, _| word == "--provider" }&.last
    given ||= ARGV.map { |word| word[/\A--provider=(.+)/, 1] }.compact.first
    given ? { "VAGRANT_DEFAULT_PROVIDER" => given } : {}
  end

  def self.restart_vagrant(plan)
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

  # Vagrant creates the folder before it reads the Vagrantfile; it is removed unless a machine was created from it.
  def self.remove_unused_state
    state = File.join(__dir__, ".vagrant")
    FileUtils.rm_rf(state) if Dir.glob(File.join(state, "machines/*/*/id")).empty?
  end

  # When `vagrant destroy` has removed the last machine, everything that swarmer had prepared is removed too.
  def self.clean_up_after(plan)
    return unless COMMAND == "destroy"
    at_exit do
      machines = Dir.glob(File.join(plan["state"], "machines/*/*/id"))
      system(SWARMER, "down", plan["cluster"]) if machines.empty?
    end
  end
end
