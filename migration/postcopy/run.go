package postcopy

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/fineline-vmm/fineline/memory"
	"github.com/fineline-vmm/fineline/migration/wire"
)

// run is one Run of a Pager over one set of connections.
type run struct {
	*Pager
	*group
	fault      Conn
	background []Conn
	// begin is when it began; arrived is when something last came or was stored, in ns after it.
	begin   time.Time
	arrived atomic.Int64

	owed  *pageBits    // absent when the run began, and not brought by a background stream yet: each is brought by one at most
	asked *pageBits    // asked for and not brought by the fault connection yet
	found *pageBits    // stored out of a stock, where they still are
	ended atomic.Int32 // background streams of which all is in place

	stocks []*stock      // of the background
	near   atomic.Uint64 // the page that was missed last, where the stocks are stored from

	asking  sync.Mutex // held to write to the fault connection; guards the buffers
	request []uint64
	payload []byte
}

func newRun(p *Pager, ctx context.Context, fault Conn, background []Conn) *run {
	absent := p.mem.Absent()
	return &run{
		Pager: p, group: newGroup(ctx, append([]Conn{fault}, background...), p.opts.PeerTimeout),
		fault: fault, background: background, begin: time.Now(),
		owed: pageBitsOf(absent), asked: newPageBits(absent), found: newPageBits(absent),
	}
}

func (r *run) start() {
	var background []*arrivals
	for i := range r.background {
		background = append(background, newArrivals(r, r.background[i], onBackground))
		r.stocks = append(r.stocks, background[i].stock)
	}
	r.group.start(r.readFaults)
	if r.lines != nil {
		r.lineMisses.begin(r.begin)
		r.group.start(r.readLineMisses)
	}
	r.group.start(r.watch)
	r.group.start(newArrivals(r, r.fault, onFault).readFault)
	for _, a := range background {
		r.group.startBackground(a.readBackground)
		r.group.startBackground(a.storeStock)
	}
}

// readFaults asks for what somebody waits for. The memory tells of it by a call, so that between a fault and its request
// there is no hand-over; Next tells of the end, and of faults where the memory has no such call.
func (r *run) readFaults() error {
	for _, page := range r.misses.restart(r.begin) {
		if err := r.ask(page); err != nil {
			return err
		}
	}
	r.mem.Tell(func(gpa memory.GPA) {
		if err := r.missed(gpa); err != nil {
			r.cancel(err)
		}
	})
	defer r.mem.Tell(nil)
	for {
		gpa, err := r.mem.Next(r.ctx)
		switch {
		case err == nil:
			err = r.missed(gpa)
		case r.ctx.Err() != nil:
			return nil
		case r.mem.Len() == 0: // a memory that is complete has no next
			return errComplete
		default:
			err = fmt.Errorf("cannot learn what is waited for: %w", err)
		}
		if err != nil {
			return err
		}
	}
}

// missed is for any goroutine, since a guest's CPUs and devices miss together.
func (r *run) missed(gpa memory.GPA) error {
	page := pageNumber(gpa)
	r.misses.open(page, time.Now())
	r.near.Store(page)
	if found, err := r.storeFound(page); found || err != nil {
		return err
	}
	return r.ask(page)
}

// storeFound stores a page that is in a stock already, by who misses it: the background's threads may have to wait for a processor.
func (r *run) storeFound(page uint64) (found bool, err error) {
	for _, s := range r.stocks {
		found, err = s.find(page, func(it arrival) error {
			filled, err := r.mem.FillRun(pageGPA(page), 1, func(_ int, content []byte) error {
				r.found.add(page) // before the background can find it stored
				return it.put(content)
			})
			if filled != 0 {
				r.stats.background.Add(1)
				r.stats.stocked.Add(1)
			}
			if err == nil {
				r.settle(page) // also if another was first, who may have been so before open
			}
			return err
		})
		if found {
			break
		}
	}
	if err != nil {
		return found, fmt.Errorf("cannot store guest page %#x: %w", page, err)
	}
	return found, r.complete()
}

// settle ends the waiting for a page that is in place, and reports whether there was any.
func (r *run) settle(page uint64) bool {
	missed := r.misses.settle(page)
	if r.lines != nil && r.lineMisses.settlePage(page) {
		r.stats.rest.Add(1)
	}
	return missed
}

// ask sends for a page that somebody waits for, with the predicted ones behind it.
func (r *run) ask(page uint64) error {
	r.asking.Lock()
	defer r.asking.Unlock()
	if !r.mem.Has(pageGPA(page)) {
		r.misses.settle(page)
		r.stats.local.Add(1)
		return nil
	}
	r.stats.faults.Add(1)
	r.misses.ask(page)
	if !r.asked.add(page) {
		// It was predicted. The source sends it next, unless it is on its way.
		r.stats.caught.Add(1)
	}
	r.request = append(r.request[:0], page)
	r.predict(page)
	r.payload = wire.AppendRequest(r.payload[:0], r.request)
	return r.send(func() error { return r.fault.Writer.Bytes(wire.TypeRequest, r.payload) })
}

// send writes a request. Preconditions: asking held.
func (r *run) send(write func() error) error {
	return r.fault.send(r.ctx, r.opts.PeerTimeout, write)
}

// predict appends to the request what the predictor names and the window allows.
func (r *run) predict(missed uint64) {
	if r.guess == nil {
		return
	}
	if r.guess.miss(missed, r.wanted) {
		r.stats.predictedRight.Add(1)
	} else {
		r.stats.predictedWrong.Add(1)
	}
	for _, page := range r.guess.chosen {
		r.asked.add(page)
		r.request = append(r.request, page)
	}
	r.stats.predictedAsked.Add(uint64(len(r.guess.chosen)))
}

// wanted says whether it is of use to ask for a page: it is absent and not under way.
func (r *run) wanted(page uint64) bool {
	return r.owed.has(page) && !r.asked.has(page) && r.mem.Has(pageGPA(page))
}

// watch ends the run when the peer is silent. There is no heartbeat: a source that has pages to bring brings some.
func (r *run) watch() error {
	timeout := r.opts.PeerTimeout
	ticks := time.NewTicker(max(timeout/8, time.Millisecond))
	defer ticks.Stop()
	for {
		select {
		case <-r.ctx.Done():
			return nil
		case <-ticks.C:
		}
		if page, since, ok := r.misses.oldest(); ok && time.Since(since) > timeout {
			return r.silence("page %#x did not come", page)
		}
		if r.lines != nil {
			if line, since, ok := r.lineMisses.waits.oldest(); ok && time.Since(since) > timeout {
				return r.silence("line %#x did not come", line)
			}
		}
		if time.Since(r.begin)-time.Duration(r.arrived.Load()) > timeout {
			return r.silence("nothing came")
		}
	}
}

// complete ends the run if nothing is absent.
func (r *run) complete() error {
	if r.mem.Len() == 0 {
		return errComplete
	}
	return nil
}
