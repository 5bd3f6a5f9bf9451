# Whom Vagrant talks to on the machines that swarmer makes: nobody. Swarmer waits for them itself, whereas Vagrant's own
# asking, twice a second and machine, would take an emulated cluster one processor second in fifteen.
class Nobody < Vagrant.plugin("2", :communicator)
  def ready?
    true
  end

  def wait_for_ready(_seconds)
    true
  end
end

class TalksToNobody < Vagrant.plugin("2")
  name "nobody to talk to"
  communicator(:nobody) { Nobody }
end
