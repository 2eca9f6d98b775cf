package memory

import (
	"errors"
	"math/bits"
	"sync"
)

const (
	// MaxFillRun is how many pages one FillRun takes, which share a system call.
	MaxFillRun = 16
	// fillLocks is far more than who fills, so that two pages seldom meet at one lock.
	fillLocks = 256
)

// FillRun is Fill of 1 to MaxFillRun pages in a row, which are made present together, by one
// system call where it can be, except those that somebody waits for. fn is called for each page that is absent, in order, and
// nothing comes after its error. Bit i of filled says that page i was absent and is present now. After an error the others that
// were absent are so still.
func (d *Demand) FillRun(gpa GPA, count int, fn func(i int, page []byte) error) (filled uint64, err error) {
	if count < 1 || count > MaxFillRun {
		panic("memory: a run of no page, or of too many")
	}
	first, err := d.admit(gpa, count)
	if err != nil {
		return 0, err
	}
	// Regions that touch have mappings of their own.
	if rest := int(min((d.g.layout.spans[first.region].SizeBytes-first.off)/PageSize, MaxFillRun)); rest < count {
		if filled, err = d.FillRun(gpa, rest, fn); err != nil {
			return filled, err
		}
		more, err := d.FillRun(gpa+GPA(rest)*PageSize, count-rest, func(i int, page []byte) error { return fn(rest+i, page) })
		return filled | more<<rest, err
	}
	d.fills.RLock()
	defer d.fills.RUnlock()
	if d.err != nil { // it is set with fills held
		return 0, d.absentOnly(first, count)
	}
	for i := 0; i < count && err == nil; i++ {
		var fresh bool
		if fresh, err = d.bring(d.g.placeAt(first.region, first.off+uint64(i)*PageSize), i, fn); fresh {
			filled |= 1 << i
		}
	}
	shown, showErr := d.deliver(first, filled)
	if showErr != nil {
		filled, err = shown|d.takeBack(first, filled&^shown), errors.Join(err, showErr)
	}
	if d.missing.Add(-int64(bits.OnesCount64(filled))) == 0 && filled != 0 {
		close(d.done)
	}
	return filled, err
}

// absentOnly returns why the Demand has ended if a page of the run is absent still.
func (d *Demand) absentOnly(first place, count int) error {
	for i := range count {
		if d.absent.has(d.g.placeAt(first.region, first.off+uint64(i)*PageSize)) {
			return d.err
		}
	}
	return nil
}

func (d *Demand) lockOf(p place) *sync.Mutex { return &d.filling[p.off/PageSize%fillLocks] }

// bring gives an absent page its content. If somebody waits for it, it is shown before the rest of its run: who begins to wait sets
// wanted and then looks at absent (note), here it is the other way around.
func (d *Demand) bring(p place, i int, fn func(i int, page []byte) error) (fresh bool, err error) {
	lock := d.lockOf(p)
	lock.Lock()
	if fresh = d.absent.has(p); fresh {
		err = fn(i, d.g.rams[p.region].bytes(p.off, PageSize))
	}
	if fresh = fresh && err == nil; fresh {
		d.absent.clear(p)
	}
	lock.Unlock()
	if fresh && d.wanted.has(p) {
		d.hasten(p)
	}
	return fresh, err
}

// hasten shows a page that somebody waits for, if it is in a run that is being filled. If it cannot at once, who fills that run does it.
func (d *Demand) hasten(p place) {
	lock := d.lockOf(p)
	if !lock.TryLock() {
		return
	}
	defer lock.Unlock()
	if !d.gate.TryRLock() { // it is held while the Demand ends, or pages begin to be held back
		return
	}
	defer d.gate.RUnlock()
	if d.held || d.absent.has(p) || !d.hidden.has(p) || d.show(p) != nil {
		return
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.letGo(p)
}

// takeBack makes pages that could not be shown absent again, and returns the others: the guest may have stored to those.
func (d *Demand) takeBack(first place, unshown uint64) (shown uint64) {
	for rest := unshown; rest != 0; rest &= rest - 1 {
		i := bits.TrailingZeros64(rest)
		p := d.g.placeAt(first.region, first.off+uint64(i)*PageSize)
		lock := d.lockOf(p)
		lock.Lock() // so that nobody hastens it meanwhile
		if d.hidden.has(p) {
			d.absent.set(p)
			d.requeue(p)
		} else {
			shown |= 1 << i
		}
		lock.Unlock()
	}
	return shown
}

// requeue has a page that somebody began to wait for while it was not absent reported with the next that is.
func (d *Demand) requeue(p place) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.wanted.has(p) {
		d.queue = append(d.queue, p.gpa)
		d.tell()
	}
}

// deliver shows pages that have their content to the guest, unless they are held back, and returns for which that is done.
func (d *Demand) deliver(first place, filled uint64) (shown uint64, err error) {
	d.gate.RLock()
	defer d.gate.RUnlock()
	rest := filled
	for i := range bits.Len64(filled) { // what was hastened
		if !d.hidden.has(d.g.placeAt(first.region, first.off+uint64(i)*PageSize)) {
			rest &^= 1 << i
		}
	}
	shown = filled &^ rest
	for rest != 0 && err == nil {
		i := bits.TrailingZeros64(rest)
		n := bits.TrailingZeros64(^(rest >> i))
		var done int
		done, err = d.deliverRun(d.g.placeAt(first.region, first.off+uint64(i)*PageSize), n)
		shown |= (1<<done - 1) << i
		rest &^= (1<<n - 1) << i
	}
	return shown, err
}

// deliverRun delivers n pages in a row and returns how many it has. Preconditions: gate held for reading.
func (d *Demand) deliverRun(first place, n int) (int, error) {
	mapped := 0
	if n > 1 && !d.held {
		mapped = d.showRun(first, n)
	}
	for i := range n {
		p := d.g.placeAt(first.region, first.off+uint64(i)*PageSize)
		if d.held {
			if err := d.deliverHeld(p); err != nil {
				return i, err
			}
			continue
		}
		if i < mapped {
			d.hidden.clear(p)
		} else if err := d.show(p); err != nil {
			return i, err
		}
		if d.wanted.has(p) {
			d.mu.Lock()
			d.letGo(p)
			d.mu.Unlock()
		}
	}
	return n, nil
}

// deliverHeld shows a page only if nobody waits for it. Preconditions: gate held for reading.
func (d *Demand) deliverHeld(p place) error {
	d.mu.Lock() // until it is shown nobody may begin to wait for it
	defer d.mu.Unlock()
	if d.wanted.has(p) {
		d.arrived = append(d.arrived, p)
		return nil
	}
	return d.show(p)
}

// showRun maps pages in a row by one call and returns how many it has mapped; show is for the others, and knows why.
func (d *Demand) showRun(first place, n int) int {
	m := &d.g.rams[first.region]
	for i := range uint64(n) {
		m.touch(first.off + i*PageSize) // as in show
	}
	mapped, err := d.faults.mapPages(m.guestAddr()+uintptr(first.off), uint64(n)*PageSize)
	if err != nil {
		return 0
	}
	return int(mapped / PageSize)
}
