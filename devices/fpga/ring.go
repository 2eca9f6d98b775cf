package fpga

import "github.com/fineline-vmm/fineline/memory"

// job is what a step has to do.
type job struct {
	epoch uint64
	held  *Completion // finished in an earlier step, or nil
	at    memory.GPA  // of the next command
}

// run takes a command and executes it. It returns the completion, or nil when the epoch is over.
func (d *Device) run(j job) *Completion {
	c, ok := d.fetch(j)
	if !ok {
		return nil
	}
	done := d.execute(j.epoch, c)
	return d.hold(j.epoch, &done)
}

// fetch reads the next command, once, and takes it: then the guest may reuse the entry.
func (d *Device) fetch(j job) (command, bool) {
	var raw [commandBytes]byte
	err := d.mem.ReadAt(j.at, raw[:])
	d.mu.Lock()
	defer d.mu.Unlock()
	switch {
	case j.epoch != d.epoch || !d.regs.running():
		return command{}, false
	case err != nil: // the ring was RAM: memory is closed
		d.fail(ringBadAddress)
		return command{}, false
	}
	d.regs.cmdTaken++
	d.metrics.Commands++
	return parseCommand(&raw), true
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

// put stores a completion, then its sequence, then interrupts.
func (d *Device) put(epoch uint64, c *Completion) {
	at, sequence, ok := d.beginPut(epoch)
	if !ok {
		return
	}
	err := d.mem.WriteAt(at, c.body())
	if err == nil {
		err = d.mem.StoreUint32(at+sequenceOffset, sequence)
	}
	d.endPut(epoch, err)
}

func (d *Device) beginPut(epoch uint64) (at memory.GPA, sequence uint32, ok bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if !d.reachable(epoch) {
		return 0, 0, false
	}
	d.putting = true
	r := &d.regs
	return memory.GPA(r.cplRing + uint64(r.cplPut%r.cplEntries)*completionBytes), r.cplPut + 1, true
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
