# A communicator that does not connect, for machines that swarmer creates. Swarmer waits for them itself; Vagrant's own
# polling, twice a second and machine, would take an emulated cluster one processor second in fifteen.
class NoopCommunicator < Vagrant.plugin("2", :communicator)
  def initialize(machine)
    @machine = machine
  end

  def ready?
    true
  end

  # Vagrant watches the machine's state in a thread that it starts after the one that calls this, and treats a state
  # that was never read as a failure; therefore this waits until the state has been read once.
  def wait_for_ready(_seconds)
    reads = Queue.new
    @machine.define_singleton_method(:state) { super().tap { reads << true } }
    reads.pop
    true
  end
end

class NoopCommunicatorPlugin < Vagrant.plugin("2")
  name "no-op communicator"
  communicator(:noop) { NoopCommunicator }
end
