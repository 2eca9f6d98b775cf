package vmm

import "time"

// turnTime is how long a vCPU runs before the next one's turn. A kick costs up to a quarter of
// a millisecond.
const turnTime = 2 * time.Millisecond

// turns lets the vCPUs run one at a time. While stores exit, KVM emulates a locked instruction
// as a load, a computation and a plain write that exits, so another vCPU could come between
// them. A turn ends between two instructions: a vCPU parks only when KVM_RUN has returned EINTR, or
// before an instruction that KVM could not begin.
type turns struct {
	cpus []*vcpu
	stop chan struct{}
	done chan struct{}
}

// startTurns holds all vCPUs but one at any time. The error is that of awaitParked.
func startTurns(cpus []*vcpu) (*turns, error) {
	t := &turns{cpus: cpus, stop: make(chan struct{}), done: make(chan struct{})}
	for _, c := range cpus {
		c.hold()
	}
	var err error
	for _, c := range cpus {
		if err == nil {
			err = c.awaitParked()
		}
	}
	if err != nil {
		for _, c := range cpus {
			c.unhold()
		}
		return nil, err
	}
	go t.run()
	return t, nil
}

func (t *turns) run() {
	defer close(t.done)
	for i := 0; ; i = (i + 1) % len(t.cpus) {
		c := t.cpus[i]
		before := c.entered()
		c.unhold()
		if !t.give(c, before) {
			for _, other := range t.cpus {
				if other != c {
					other.unhold()
				}
			}
			return
		}
		c.hold()
		c.await(parked)
	}
}

// give returns when the vCPU has had its turn, or false when turns end. The time counts only from where the vCPU
// was seen to have entered the guest: where threads wake up more slowly than turns are long, nobody
// would get forward otherwise. One that is not wanted running has no use for a turn.
func (t *turns) give(c *vcpu, before uint64) bool {
	for seen := false; !seen; {
		seen = c.entered() != before || !c.wanted()
		select {
		case <-time.After(turnTime):
		case <-t.stop:
			return false
		}
	}
	return true
}

// end lets all run again.
func (t *turns) end() {
	close(t.stop)
	<-t.done
}
