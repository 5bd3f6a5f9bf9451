# Prints what Vagrant makes of one machine in a Vagrantfile, as JSON.
#   ruby machine_config.rb FOLDER MACHINE PROVIDER
require "vagrant"
require "json"

folder, machine, provider = ARGV
environment = Vagrant::Environment.new(cwd: folder)
config = environment.vagrantfile.machine_config(machine.to_sym, provider.to_sym, nil, nil, false)[:config]
puts JSON.generate(
  networks: config.vm.networks,
  drives: config.vm.disks.map { |disk| [disk.type, disk.file] },
  customizations: config.vm.get_provider_config(provider.to_sym).customizations.map(&:last),
  ssh: [config.ssh.host, config.ssh.port],
)
