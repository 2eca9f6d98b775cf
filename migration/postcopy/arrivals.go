package postcopy

import (
	"time"

	"github.com/fineline-vmm/fineline/memory"
	"github.com/fineline-vmm/fineline/migration/wire"
)

// role says what a connection may bring.
type role int

const (
	onFault      role = iota // pages that were asked for
	onBackground             // pages that are absent, each once
)

// arrivals stores what one connection brings. Every record is checked at its use (design law 5): a page that this connection may
// not bring ends the run. So the pages on it are no more than were asked for, or were absent.
type arrivals struct {
	*run
	conn Conn
	role role

	pages uint64 // brought

	// The record that is being stored, for the closure that stores it: nothing is allocated per page.
	content []byte
	store   func(page []byte) error
}

func newArrivals(r *run, conn Conn, role role) *arrivals {
	a := &arrivals{run: r, conn: conn, role: role}
	a.store = func(page []byte) error {
		copy(page, a.content)
		return nil
	}
	return a
}

func (a *arrivals) read() error {
	takes := wire.Of(wire.TypePages)
	if a.role == onBackground {
		takes = wire.Of(wire.TypePages, wire.TypeRoundEnd)
	}
	for {
		f, err := a.conn.Reader.Next(takes)
		if err != nil {
			return connectionError(err)
		}
		if f.Type == wire.TypeRoundEnd {
			return a.roundEnd(f)
		}
		if err := a.frame(f.Payload); err != nil {
			return err
		}
		if err := a.complete(); err != nil {
			return err
		}
	}
}

// frame stores the records of one PAGES frame.
func (a *arrivals) frame(payload []byte) error {
	a.arrived.Store(int64(time.Since(a.begin)))
	a.stats.bytes.Add(uint64(len(payload)))
	for len(payload) > 0 {
		rec, rest, err := wire.NextRecord(payload)
		if err != nil {
			return err
		}
		if err := a.record(rec); err != nil {
			return err
		}
		payload = rest
	}
	return nil
}

func (a *arrivals) record(rec wire.Record) error {
	for i := range uint64(rec.Count) {
		page := rec.First + i
		if err := a.admit(page); err != nil {
			return err
		}
		var filled bool
		var err error
		switch rec.Kind {
		case wire.KindZero:
			a.content = zeroPage[:]
			filled, err = a.mem.FillZero(pageGPA(page))
		default:
			a.content = rec.Data[i*memory.PageSize:][:memory.PageSize]
			filled, err = a.mem.Fill(pageGPA(page), a.store)
		}
		if err != nil {
			return err
		}
		a.stored(page, filled)
	}
	return nil
}

// admit checks that this connection may bring the page.
func (a *arrivals) admit(page uint64) error {
	switch {
	case a.role == onFault && !a.asked.has(page):
		return protocolErrorf("the fault connection brings page %#x, which nobody asked for", page)
	case a.role == onBackground && !a.owed.take(page):
		return protocolErrorf("the background brings page %#x, which is not absent or came before", page)
	}
	a.pages++
	return nil
}

// stored counts a page and shows it to the predictor, after whoever waits for it has been woken.
func (a *arrivals) stored(page uint64, filled bool) {
	if a.role == onFault {
		a.asked.take(page) // not before it is in place: see checkRest
	}
	if !filled {
		a.stats.late.Add(1)
		return
	}
	missed := a.misses.settle(page)
	switch {
	case a.role == onBackground:
		a.stats.background.Add(1)
		return
	case missed:
		a.stats.fault.Add(1)
	default:
		a.stats.predicted.Add(1)
	}
	a.guess.arrived(page, a.content)
}

// roundEnd ends a background stream. When all have ended, everything that is still absent has been asked for, and is on its way on the
// fault connection.
func (a *arrivals) roundEnd(f wire.Frame) error {
	end, err := wire.Decode[wire.RoundEnd](f)
	if err != nil {
		return err
	}
	if end.Round != 1 || end.Pages != a.pages || end.ZeroPages != 0 || end.Paused {
		return protocolErrorf("%s says %+v, and %d pages came", wire.TypeRoundEnd, *end, a.pages)
	}
	if int(a.ended.Add(1)) < len(a.background) {
		return nil
	}
	return a.checkRest()
}

func (a *arrivals) checkRest() error {
	var err error
	a.mem.Absent().Range(func(gpa memory.GPA) bool {
		if page := pageNumber(gpa); !a.asked.has(page) && a.mem.Has(gpa) {
			err = protocolErrorf("the background has ended and page %#x was never sent", page)
		}
		return err == nil
	})
	return err
}
