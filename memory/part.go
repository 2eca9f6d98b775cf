package memory

import (
	"errors"

	"golang.org/x/sys/unix"
)

// Lend calls fn with an absent page, for a part of it that is known to be right, and leaves the page absent: false
// says that it was not, and fn was not called. A store marks the page dirty; the observer is not told. Of the Fills and Lends of
// one page one runs at a time; fn must use neither.
func (d *Demand) Lend(gpa GPA, store bool, fn func(page []byte)) (bool, error) {
	p, err := d.admit(gpa, 1)
	if err != nil {
		return false, err
	}
	d.fills.RLock()
	defer d.fills.RUnlock()
	lock := d.lockOf(p)
	lock.Lock()
	defer lock.Unlock()
	if !d.absent.has(p) {
		return false, nil
	}
	if d.err != nil { // it is set with fills held
		return false, d.err
	}
	fn(d.g.rams[p.region].bytes(p.off, PageSize))
	if store {
		d.g.markPages(p.region, p.off, PageSize)
	}
	return true, nil
}

// AwaitPart has the calling thread wait for a part of an absent page until arrived is closed, or with an error until the
// Demand has failed. Nothing is asked for. To who pauses the guest it is a thread that waits for a page: see Guest.Waits, and while
// arrivals are held back it does not return. The caller must not change threads meanwhile.
func (d *Demand) AwaitPart(gpa GPA, arrived <-chan struct{}) error {
	p, err := d.admit(gpa&^(PageSize-1), 1)
	if err != nil {
		return err
	}
	thread := unix.Gettid()
	d.partly(thread, p)
	select {
	case <-arrived:
	case <-d.ended:
	}
	for {
		released := d.leavePart(thread)
		if released == nil {
			break
		}
		d.partly(thread, p) // the page may have come, which ends the note
		<-released
	}
	if err := d.failure(); err != nil && !errors.Is(err, errDemandOver) {
		return err
	}
	<-arrived // a Demand that is complete has brought it
	return nil
}

// partly notes that a thread waits for a part of a page.
func (d *Demand) partly(thread int, p place) {
	d.mu.Lock()
	d.threads[thread] = p
	d.parts[thread] = struct{}{}
	watch := d.watcher()
	d.mu.Unlock()
	if watch != nil {
		watch()
	}
}

// leavePart ends that, or returns what is closed when it is worth trying again.
func (d *Demand) leavePart(thread int) <-chan struct{} {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.held && d.err == nil {
		return d.released
	}
	delete(d.threads, thread)
	delete(d.parts, thread)
	return nil
}
