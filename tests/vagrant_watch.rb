# Takes a machine over as swarmer does, while Vagrant's watch over its state is slow to begin.
#   ruby vagrant_watch.rb
require "vagrant"
require "vagrant/action/builtin/wait_for_communicator"
require_relative "../vagrant/noop_communicator"

# What Vagrant's action asks of a machine.
class Machine
  def state
    Struct.new(:id).new(:running)
  end

  def communicate
    @communicate ||= NoopCommunicator.new(self)
  end

  def config
    Struct.new(:vm).new(Struct.new(:boot_timeout).new(60))
  end
end

# The first thread that the action begins calls the communicator, the second one watches.
threads = 0
Thread.singleton_class.prepend(Module.new do
  define_method(:new) do |*words, &block|
    slow = (threads += 1) == 2
    super(*words) { sleep 1 if slow; block.call }
  end
end)

Vagrant::Action::Builtin::WaitForCommunicator.new(->(_) { puts "taken over" }, {}, [:running]).call(
  machine: Machine.new, ui: Class.new { def output(*); end }.new
)
