package postcopy

import (
	"context"
	"fmt"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/fineline-vmm/fineline/migration/sendqueue"
	"github.com/fineline-vmm/fineline/migration/wire"
)

const (
	// predictedPages is how many predicted pages one frame takes: a request that comes meanwhile waits for no more.
	predictedPages = 4
	// predictedRequests is how many requests' predictions wait to be sent. The oldest are dropped: the
	// background brings them, and what was predicted long ago was needed long ago.
	predictedRequests = 16
)

// answerer is the fault connection. One goroutine reads requests and writes the missed page itself, so that no
// hand-over is in its way; another writes what was predicted.
type answerer struct {
	server *Server
	ctx    context.Context
	conn   Conn
	missed *wire.Batch // of readRequests, as is line
	line   []byte
	heard  atomic.Int64 // when the destination was last seen to do something, in ns after begin
	begin  time.Time

	writing sync.Mutex // held for one frame

	mu      sync.Mutex
	waiting [][]uint64    // predicted pages by request, the newest last; at most predictedRequests
	more    chan struct{} // waiting is not empty
}

func newAnswerer(s *Server, ctx context.Context, conn Conn) *answerer {
	return &answerer{server: s, ctx: ctx, conn: conn, begin: time.Now(), missed: wire.NewBatch(wire.MinBatchBytes), more: make(chan struct{}, 1)}
}

// awaitEnd waits, when all pages have been sent, for as long as the destination may take to say that it has
// them, once the kernel has sent them too. It returns nil if the run ends before.
func (a *answerer) awaitEnd(conns []Conn) error {
	timeout := a.server.opts.PeerTimeout
	all := make([]net.Conn, len(conns))
	for i := range conns {
		all[i] = conns[i].Conn
	}
	defer sendqueue.Follow(timeout, a.hear, all...)()
	for last := time.Since(a.begin); ; {
		left := timeout - (time.Since(a.begin) - max(last, time.Duration(a.heard.Load())))
		if left <= 0 {
			return fmt.Errorf("%w: every page was sent, and no word of their arrival came for %v", ErrPeerSilent, timeout)
		}
		select {
		case <-time.After(left):
		case <-a.ctx.Done():
			return nil
		}
	}
}

func (a *answerer) hear() { a.heard.Store(int64(time.Since(a.begin))) }

func (a *answerer) readRequests() error {
	a.conn.Reader.ReadAhead(promptly(a.conn.Conn), faultReadBytes)
	takes := wire.Of(wire.TypeRequest, wire.TypeRequestLine)
	var pages []uint64
	for {
		f, err := a.conn.Reader.Next(takes)
		if err != nil {
			return connectionError(err)
		}
		a.hear()
		if f.Type == wire.TypeRequestLine {
			if err := a.answerLine(f.Payload); err != nil {
				return err
			}
			continue
		}
		if pages, err = wire.DecodeRequest(pages[:0], f.Payload); err != nil {
			return err
		}
		if err := a.answer(pages); err != nil {
			return err
		}
	}
}

// answer sends the first page, and leaves the others to the other goroutine.
func (a *answerer) answer(pages []uint64) error {
	s := a.server
	for _, page := range pages {
		if !s.pages.has(page) {
			return protocolErrorf("%s of page %#x, which the destination does not lack", wire.TypeRequest, page)
		}
	}
	missed := pages[0]
	s.gate.close()
	err := a.sendMissed(missed)
	s.gate.reopen()
	// The next pages are the likeliest to be wanted next.
	s.cursor.Store(missed + 1)
	a.queue(pages[1:])
	return err
}

// sendMissed sends the page alone in a frame. One that went out on this connection before is on its way.
func (a *answerer) sendMissed(page uint64) error {
	s := a.server
	if !s.urged.add(page) {
		return nil
	}
	s.sent.missed.Add(1)
	claimed := s.unsent.take(page)
	if !claimed {
		s.sent.again.Add(1)
	}
	a.missed.Reset()
	if err := s.encode(page, !claimed, a.missed); err != nil {
		return err
	}
	return a.write(a.missed)
}

func (a *answerer) write(b *wire.Batch) error {
	b.Seal()
	a.writing.Lock()
	defer a.writing.Unlock()
	return a.conn.send(a.ctx, a.server.opts.PeerTimeout, func() error { return a.conn.Writer.Batch(b) })
}

// queue leaves the predicted pages to the other goroutine, before those of older requests.
func (a *answerer) queue(pages []uint64) {
	if len(pages) == 0 {
		return
	}
	a.mu.Lock()
	if len(a.waiting) == predictedRequests {
		a.waiting = slices.Delete(a.waiting, 0, 1)
	}
	a.waiting = append(a.waiting, slices.Clone(pages))
	a.mu.Unlock()
	select {
	case a.more <- struct{}{}:
	default: // it has been told
	}
}

func (a *answerer) sendPredicted() error {
	batch := wire.NewBatch(predictedPages * wire.MinBatchBytes)
	for {
		select {
		case <-a.more:
		case <-a.ctx.Done():
			return nil
		}
		for {
			a.server.gate.pass()
			pages := a.claimPredicted()
			if len(pages) == 0 {
				break
			}
			batch.Reset()
			for _, page := range pages {
				if err := a.server.encode(page, false, batch); err != nil {
					return err
				}
			}
			if err := a.write(batch); err != nil {
				return err
			}
			a.server.sent.predicted.Add(uint64(len(pages)))
		}
	}
}

// claimPredicted claims pages for one frame, of the newest request that has some left, and returns them in
// ascending order.
func (a *answerer) claimPredicted() []uint64 {
	s := a.server
	var claimed [predictedPages]uint64
	n := 0
	a.mu.Lock()
	defer a.mu.Unlock()
	for n == 0 && len(a.waiting) > 0 {
		newest := len(a.waiting) - 1
		rest := a.waiting[newest]
		for n < predictedPages && len(rest) > 0 {
			page := rest[0]
			rest = rest[1:]
			// Between the two readRequests may send the page whole, as one that somebody else has claimed.
			if !s.unsent.take(page) {
				continue
			}
			if !s.urged.add(page) {
				s.sent.predicted.Add(1) // who sends it counts it as sent again
				continue
			}
			claimed[n] = page
			n++
		}
		a.waiting[newest] = rest
		if len(rest) == 0 {
			a.waiting = a.waiting[:newest]
		}
	}
	pages := claimed[:n]
	slices.Sort(pages)
	return pages
}
