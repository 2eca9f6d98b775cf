package postcopy

import (
	"fmt"
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

// arrivals stores what one connection brings, on the background what is in its stock. Every record is checked at its use
// (design law 5): a page that this connection may not bring ends the run. So the pages on it are no more than were asked for, or
// were absent.
type arrivals struct {
	*run
	conn  Conn
	role  role
	stock *stock // on the background

	pages    uint64        // that were read
	patience time.Duration // for which the present frame may still yield

	// What is stored next: pages in a row, count of them. On the fault connection it is one, since somebody waits for it.
	first   uint64
	count   int
	most    int
	next    [memory.MaxFillRun]arrival
	put     func(i int, page []byte) error // stores next[i]; made once, so that nothing is allocated per page
	scratch [memory.PageSize]byte          // copy of a page made of lines, for the predictor
}

func newArrivals(r *run, conn Conn, role role) *arrivals {
	a := &arrivals{run: r, conn: conn, role: role, most: 1}
	if role == onBackground {
		a.most = memory.MaxFillRun
		a.stock = newStock(r.ctx)
	}
	a.put = func(i int, page []byte) error {
		it := &a.next[i]
		err := it.put(page)
		if a.role == onFault && it.whole == nil {
			it.whole = a.scratch[:copy(a.scratch[:], page)]
		}
		return err
	}
	return a
}

// readFault stores what was asked for as it comes.
func (a *arrivals) readFault() error {
	takes := wire.Of(wire.TypePages, wire.TypePagesZstd)
	if a.lines != nil {
		takes = wire.Of(wire.TypePages, wire.TypePagesZstd, wire.TypeLine)
	}
	a.conn.Reader.ReadAhead(promptly(a.conn.Conn), faultReadBytes)
	for {
		f, err := a.conn.Reader.Next(takes)
		if err != nil {
			return connectionError(err)
		}
		a.alive()
		if f.Type == wire.TypeLine {
			err = a.line(f)
		} else {
			a.stats.bytes.Add(uint64(wire.HeaderBytes + f.WireBytes))
			err = a.store(f.Payload)
		}
		if err == nil {
			err = a.complete()
		}
		if err != nil {
			return err
		}
	}
}

// readBackground puts what comes into the stock.
func (a *arrivals) readBackground() error {
	takes := wire.Of(wire.TypePages, wire.TypePagesZstd, wire.TypeRoundEnd)
	for {
		f, err := a.conn.Reader.Next(takes)
		if err != nil {
			return connectionError(err)
		}
		a.alive()
		if f.Type == wire.TypeRoundEnd {
			return a.roundEnd(f)
		}
		a.stats.bytes.Add(uint64(wire.HeaderBytes + f.WireBytes))
		if err := a.stockUp(f.Payload); err != nil {
			return err
		}
	}
}

func (a *arrivals) stockUp(payload []byte) error {
	first, last, before := ^uint64(0), uint64(0), a.pages
	err := eachPage(payload, func(page uint64, _ arrival) error {
		first, last = min(first, page), max(last, page)
		a.pages++
		if !a.owed.take(page) {
			return protocolErrorf("the background brings page %#x, which is not absent or came before", page)
		}
		return nil
	})
	if err != nil {
		return err
	}
	return a.stock.add(payload, first, last, int(a.pages-before))
}

// storeStock stores what is in the stock until there will be no more.
func (a *arrivals) storeStock() error {
	for {
		c, err := a.stock.take(a.near.Load())
		if err != nil {
			return nil //nolint:nilerr // the run has ended, and says why
		}
		if c == nil {
			return a.streamEnd()
		}
		a.patience = framePatience
		if err := a.store(c.payload); err != nil {
			return err
		}
		a.stock.done(c)
		if err := a.complete(); err != nil {
			return err
		}
	}
}

// alive notes that something came, or is being stored.
func (a *arrivals) alive() { a.arrived.Store(int64(time.Since(a.begin))) }

// store stores the pages of a frame.
func (a *arrivals) store(payload []byte) error {
	if err := eachPage(payload, a.page); err != nil {
		return err
	}
	return a.flush()
}

// page takes one page, and stores what came before if it is no neighbour of that.
func (a *arrivals) page(page uint64, it arrival) error {
	if a.role == onFault && !a.asked.has(page) {
		return protocolErrorf("the fault connection brings page %#x, which nobody asked for", page)
	}
	if a.count == a.most || a.count > 0 && page != a.first+uint64(a.count) {
		if err := a.flush(); err != nil {
			return err
		}
	}
	if a.count == 0 {
		a.first = page
	}
	a.next[a.count] = it
	a.count++
	return nil
}

// flush stores what was taken, as far as it is absent still.
func (a *arrivals) flush() error {
	count := a.count
	if count == 0 {
		return nil
	}
	a.count = 0
	a.alive() // also while nothing is read, since there is enough
	a.yield()
	filled, err := a.mem.FillRun(pageGPA(a.first), count, a.put)
	for i := range count {
		if here := filled>>i&1 != 0; here || err == nil {
			a.stored(a.first+uint64(i), here, a.next[i].whole)
		}
	}
	if err != nil {
		return fmt.Errorf("cannot store guest page %#x, or one of the %d in a row: %w", a.first, count, err)
	}
	return nil
}

// framePatience is for how long a frame of the background yields in all. Where answers come from near, that is
// several of them; where they are long in coming nothing is won by waiting, and 64 KiB in this time is more
// than such links have.
const framePatience = 300 * time.Microsecond

// yield has the background wait while somebody waits for a page: where processors are few, the answer needs
// ours, and while we do not read the source does not write.
func (a *arrivals) yield() {
	if a.role != onBackground || a.patience <= 0 {
		return
	}
	a.patience -= a.misses.waitIdle(a.patience)
	if a.lines != nil {
		a.patience -= a.lineMisses.waits.waitIdle(max(a.patience, 0))
	}
}

// stored counts a page and shows it to the predictor, after whoever waits for it has been woken.
func (a *arrivals) stored(page uint64, filled bool, content []byte) {
	if a.role == onFault {
		a.asked.take(page) // not before it is in place: see checkRest
	}
	if !filled {
		if a.role == onFault || !a.found.take(page) {
			a.stats.late.Add(1)
		}
		return
	}
	missed := a.settle(page)
	switch {
	case a.role == onBackground:
		a.stats.background.Add(1)
		return
	case missed:
		a.stats.fault.Add(1)
	default:
		a.stats.predicted.Add(1)
	}
	if a.guess != nil {
		a.guess.arrived(page, content)
	}
}

// roundEnd ends the reading of a background stream.
func (a *arrivals) roundEnd(f wire.Frame) error {
	end, err := wire.Decode[wire.RoundEnd](f)
	if err != nil {
		return err
	}
	if end.Round != 1 || end.Pages != a.pages || end.ZeroPages != 0 || end.Paused {
		return protocolErrorf("%s says %+v, and %d pages came", wire.TypeRoundEnd, *end, a.pages)
	}
	a.stock.close()
	return nil
}

// streamEnd notes that all of a background stream is in place. When that is so of all of them, everything that is still absent has
// been asked for, and is on its way on the fault connection.
func (a *arrivals) streamEnd() error {
	if int(a.ended.Add(1)) < len(a.background) {
		return nil
	}
	var err error
	a.mem.Absent().Range(func(gpa memory.GPA) bool {
		if page := pageNumber(gpa); !a.asked.has(page) && a.mem.Has(gpa) {
			err = protocolErrorf("the background has ended and page %#x was never sent", page)
		}
		return err == nil
	})
	return err
}
