# Whom Vagrant talks to on the machines that swarmer makes: nobody. Swarmer waits for them itself, whereas Vagrant's own
# asking, twice a second and machine, would take an emulated cluster one processor second in fifteen.
class NoopCommunicator < Vagrant.plugin("2", :communicator)
  def initialize(machine)
    @machine = machine
  end

  def ready?
    true
  end

  # Vagrant watches the machine's state in a thread that it begins after the one that calls this, and takes a state that
  # was never looked at for a bad one: so this waits for the first look.
  def wait_for_ready(_seconds)
    looks = Queue.new
    @machine.define_singleton_method(:state) { super().tap { looks << true } }
    looks.pop
    true
  end
end

class NoopCommunicatorPlugin < Vagrant.plugin("2")
  name "no-op communicator"
  communicator(:noop) { NoopCommunicator }
end
