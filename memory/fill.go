package memory

import "math/bits"

const (
	// MaxFillRun is how many pages one FillRun takes: enough to share a system call, and few for who waits for one of them.
	MaxFillRun = 16
	// fillLocks is far more than what runs hold, so that a page that is waited for seldom meets another's run.
	fillLocks = 1024
)

// FillRun is Fill of 1 to MaxFillRun pages in a row, which are made present together, by one
// system call where it can be. fn is called for each page that is absent, in order. Bit i of filled says that page i was
// absent and is present now. After an error the pages that are not in filled are absent still.
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
	d.lockRun(first, count)
	defer d.unlockRun(first, count)
	if d.err != nil { // it is set with all of filling held
		return 0, d.absentOnly(first, count)
	}
	for i := range count {
		p := d.g.placeAt(first.region, first.off+uint64(i)*PageSize)
		if !d.absent.has(p) {
			continue
		}
		if err := fn(i, d.g.rams[p.region].bytes(p.off, PageSize)); err != nil {
			return 0, err
		}
		filled |= 1 << i
	}
	shown, err := d.deliver(first, filled)
	d.arrive(first, shown) // also if others could not be shown: the guest may have stored to these
	return shown, err
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

// arrive notes that pages are absent no more.
func (d *Demand) arrive(first place, filled uint64) {
	if filled == 0 {
		return
	}
	for i := range bits.Len64(filled) {
		if filled>>i&1 != 0 {
			d.absent.clear(d.g.placeAt(first.region, first.off+uint64(i)*PageSize))
		}
	}
	if d.missing.Add(-int64(bits.OnesCount64(filled))) == 0 {
		close(d.done)
	}
}

// lockRun takes the locks of a run. Those behind the end of the table come first: they are lower.
func (d *Demand) lockRun(first place, count int) {
	at := int(first.off / PageSize % fillLocks)
	for i := range max(0, at+count-fillLocks) {
		d.filling[i].Lock()
	}
	for i := at; i < min(at+count, fillLocks); i++ {
		d.filling[i].Lock()
	}
}

func (d *Demand) unlockRun(first place, count int) {
	at := int(first.off / PageSize % fillLocks)
	for i := range count {
		d.filling[(at+i)%fillLocks].Unlock()
	}
}

// deliver shows pages that have their content to the guest, unless they are held back, and returns which it has.
func (d *Demand) deliver(first place, filled uint64) (shown uint64, err error) {
	d.gate.RLock()
	defer d.gate.RUnlock()
	for filled != 0 && err == nil {
		i := bits.TrailingZeros64(filled)
		n := bits.TrailingZeros64(^(filled >> i))
		var done int
		done, err = d.deliverRun(d.g.placeAt(first.region, first.off+uint64(i)*PageSize), n)
		shown |= (1<<done - 1) << i
		filled &^= (1<<n - 1) << i
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
