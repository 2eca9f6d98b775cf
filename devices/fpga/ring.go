package fpga

import "github.com/fineline-vmm/fineline/memory"

// job is what a step has to do.
type job struct {
	epoch uint64
	held  *Completion // finished in an earlier step, or nil
	at    memory.GPA  // of the next command
}

// run takes a command and executes it. It returns the completion, or nil when the epoch is over. Where guest memory is
// missing, nothing is taken, and it returns what is closed when there is reason to try again.
func (d *Device) run(j job) (done *Completion, arrives <-chan struct{}) {
	if arrives = d.mem.Missing(j.at, commandBytes); arrives != nil {
		return nil, arrives
	}
	var raw [commandBytes]byte
	err := d.mem.ReadAt(j.at, raw[:]) // once: the guest may change it
	c := parseCommand(&raw)
	if arrives = d.missing(c); arrives != nil {
		return nil, arrives
	}
	if !d.take(j, err) {
		return nil, nil
	}
	completion := d.execute(j.epoch, c)
	return d.hold(j.epoch, &completion), nil
}

// missing asks for the memory that a command names. A command never waits inside: it would have the turn, and the
// engine's lock.
func (d *Device) missing(c command) <-chan struct{} {
	switch {
	case c.count > maxCount: // it is refused
		return nil
	case c.opcode == opRegister || c.opcode == opUnregister:
		return d.mem.Missing(c.address, uint64(c.count)*rangeBytes)
	case c.opcode == opHarvest:
		return d.mem.Missing(c.address, uint64(c.count)*recordBytes)
	}
	return nil
}

// take counts the command that was read: then the guest may reuse the entry.
func (d *Device) take(j job, err error) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	switch {
	case j.epoch != d.epoch || !d.regs.running():
		return false
	case err != nil: // the ring was RAM: memory is closed
		d.fail(ringBadAddress)
		return false
	}
	d.regs.cmdTaken++
	d.metrics.Commands++
	return true
}

// hold keeps a completion until it is in the ring, which without bus mastering takes its time: so
// it is part of the saved form.
func (d *Device) hold(epoch uint64, c *Completion) *Completion {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.metrics.Statuses[c.Status]++
	if epoch != d.epoch || !d.regs.running() {
		return nil
	}
	d.held = c
	return c
}

// put stores a completion, then its sequence, then interrupts. Where the ring is missing it does nothing, and returns
// what is closed when there is reason to try again.
func (d *Device) put(epoch uint64, c *Completion) (arrives <-chan struct{}) {
	at, sequence, ok := d.nextPut(epoch)
	if !ok {
		return nil
	}
	if arrives = d.mem.Missing(at, completionBytes); arrives != nil {
		return arrives
	}
	if !d.beginPut(epoch) {
		return nil
	}
	err := d.mem.WriteAt(at, c.body())
	if err == nil {
		err = d.mem.StoreUint32(at+sequenceOffset, sequence)
	}
	d.endPut(epoch, err)
	return nil
}

// nextPut is where the next completion goes.
func (d *Device) nextPut(epoch uint64) (at memory.GPA, sequence uint32, ok bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if !d.reachable(epoch) {
		return 0, 0, false
	}
	r := &d.regs
	return memory.GPA(r.cplRing + uint64(r.cplPut%r.cplEntries)*completionBytes), r.cplPut + 1, true
}

func (d *Device) beginPut(epoch uint64) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.putting = d.reachable(epoch)
	return d.putting
}

func (d *Device) endPut(epoch uint64, err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if epoch != d.epoch {
		return
	}
	d.putting, d.held = false, nil
	if err != nil { // as in fetch
		d.fail(ringBadAddress)
		return
	}
	d.regs.cplPut++
	if d.regs.control&controlInterrupt != 0 {
		d.metrics.Interrupts++
		d.msix.Signal(0)
	}
}
