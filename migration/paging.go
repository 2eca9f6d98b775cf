package migration

import (
	"context"
	"errors"
	"fmt"
	"net"
	"time"

	"github.com/fineline-vmm/fineline/memory"
	"github.com/fineline-vmm/fineline/migration/inject"
	"github.com/fineline-vmm/fineline/migration/postcopy"
	"github.com/fineline-vmm/fineline/migration/wire"
)

// paging is the part of a session that brings the memory after the guest.
type paging struct {
	demand *memory.Demand
	pager  *postcopy.Pager
	// recoveries yields the source's main connection after one was lost.
	recoveries chan *visitor
	// done is closed when complete is set: all memory is here.
	done     chan struct{}
	complete wire.Complete
}

// expectMemory makes the pages of an ABSENT frame come when they are needed.
func (s *session) expectMemory(payload []byte) error {
	absent := s.mem.mem.NewPageSet()
	if err := decodeAbsent(payload, absent); err != nil {
		return err
	}
	demand, err := s.mem.mem.Demand(absent)
	if err != nil {
		return err
	}
	missing, err := s.missing(demand)
	if err != nil {
		return errors.Join(err, demand.Close())
	}
	pager := postcopy.NewPager(missing, postcopy.PagerOptions{Guesser: s.guesser, PeerTimeout: s.l.opts.PeerTimeout})
	s.paging = &paging{demand: demand, pager: pager, recoveries: make(chan *visitor), done: make(chan struct{})}
	return s.inject(inject.DestinationAbsent)
}

// checkTouched refuses a state whose restore would wait in the kernel for a page that nobody brings before the commit.
func (s *session) checkTouched(state []byte) error {
	target, ok := s.target.(RestoreToucher)
	if s.paging == nil || !ok {
		return nil
	}
	pages, err := target.RestorePages(state)
	if err != nil {
		return fmt.Errorf("cannot tell which pages the machine's state needs: %w", err)
	}
	for _, gpa := range pages {
		if s.paging.demand.Has(gpa) {
			return fmt.Errorf("%w: the machine's state needs page %#x, which is absent", wire.ErrProtocol, uint64(gpa))
		}
	}
	return nil
}

// injectedMemory lets a test fail the arrival of a page.
type injectedMemory struct {
	postcopy.Memory
	s *session
}

func (m *injectedMemory) FillRun(gpa memory.GPA, count int, fn func(i int, page []byte) error) (uint64, error) {
	for range count { // a run is as good as its pages
		if err := m.s.inject(inject.DestinationPage); err != nil {
			return 0, err
		}
	}
	return m.Memory.FillRun(gpa, count, fn)
}

// injectedLines is injectedMemory for a memory of lines, whose arrival is as good as a page's.
type injectedLines struct {
	postcopy.LineMemory
	pages injectedMemory
}

func (m *injectedLines) FillRun(gpa memory.GPA, count int, fn func(i int, page []byte) error) (uint64, error) {
	return m.pages.FillRun(gpa, count, fn)
}

func (m *injectedLines) FillLine(line uint64, content []byte) (bool, error) {
	if err := m.pages.s.inject(inject.DestinationPage); err != nil {
		return false, err
	}
	return m.LineMemory.FillLine(line, content)
}

// rehearseMemory finds out, while the guest runs at the source, whether pages of this machine can come when they
// are needed, and prepares for it.
func (s *session) rehearseMemory() error {
	if !s.source.Mode.AfterCommit() {
		return nil
	}
	demand, err := s.mem.mem.Demand(s.mem.mem.NewPageSet())
	if err != nil {
		return err
	}
	s.guesser, err = postcopy.NewGuesser(s.l.opts.Predictor, s.mem.regions)
	return errors.Join(err, demand.Close())
}

// missing is what the pager fills.
func (s *session) missing(d *memory.Demand) (postcopy.Memory, error) {
	pages := injectedMemory{d, s}
	target, ok := s.target.(LineTarget)
	if !ok {
		return &pages, nil
	}
	lines, err := target.HomeMissing(d)
	if lines == nil || err != nil {
		return &pages, err
	}
	return &injectedLines{lines, injectedMemory{lines, s}}, nil
}

// page brings all memory, over one set of connections after the other. The guest is this process's already.
func (s *session) page() error {
	holder, _ := s.target.(Holder)
	guest := &hold{holder: holder, log: s.log}
	err := s.inject(inject.DestinationPaging)
	for {
		if err == nil {
			err = s.pageOnce()
		}
		if err == nil || s.paging.demand.Len() == 0 { // a connection that is lost when all is here takes nothing away
			return s.complete(wire.Complete{Faults: s.faults()})
		}
		<-s.ended // the guest runs, and the source was told
		if s.l.ctx.Err() != nil {
			// This process ends, and the guest with it: the source need not wait.
			return s.complete(wire.Complete{Ended: true, Faults: s.faults()})
		}
		s.interrupt()
		guest.set(true)
		said := false
		s.turns.Do(func() {
			said = true
			s.log.Warnf("migration: the guest is paused, since the connection to its memory is lost: %v", err)
		})
		s.stalled(err)
		if err = s.recover(); err != nil {
			return errors.Join(err, s.paging.demand.Close())
		}
		guest.set(false)
		if said {
			s.log.Info("migration: the guest goes on, its memory arrives again")
		}
		s.stalled(nil)
		err = s.inject(inject.DestinationRecovered)
	}
}

func (s *session) stalled(cause error) {
	if s.l.opts.Stalled != nil {
		s.l.opts.Stalled(cause)
	}
}

// bringMemory is page, and what follows it. It runs in a goroutine of the Listener.
func (s *session) bringMemory() {
	err := s.page()
	if err != nil {
		s.log.Errorf("migration: %v", err)
	}
	if s.l.opts.Complete != nil {
		s.l.opts.Complete(err)
	}
	s.awaitDone()
	s.closeStreams()
}

// pageOnce fetches over the connections that there are.
func (s *session) pageOnce() error {
	conns, err := s.streamConns()
	if err != nil {
		return err
	}
	last := len(conns) - 1
	return s.paging.pager.Run(s.l.ctx, conns[last], conns[:last])
}

// streamConns returns the source's streams once all are there.
func (s *session) streamConns() ([]postcopy.Conn, error) {
	ctx, cancel := context.WithTimeoutCause(s.l.ctx, s.l.opts.PeerTimeout, ErrPeerSilent)
	defer cancel()
	var conns []postcopy.Conn
	for _, in := range s.streams() {
		select {
		case <-in.there:
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
		_ = in.visitor.conn.SetDeadline(time.Time{}) // fails only when closed, as will its use
		conns = append(conns, postcopy.Conn{Conn: in.visitor.conn, Reader: in.visitor.r, Writer: in.visitor.w})
	}
	if len(conns) == 0 {
		return nil, net.ErrClosed
	}
	return conns, nil
}

// complete tells the source that it is not needed any more.
func (s *session) complete(done wire.Complete) error {
	<-s.ended // RUNNING comes before it
	err := s.inject(inject.DestinationComplete)
	if err == nil {
		err = s.visitor.send(wire.TypeComplete, done)
	}
	if err != nil {
		s.log.Debugf("migration: %v", err)
		s.interrupt() // a source that asks on a new connection is told again
	}
	s.paging.complete = done
	close(s.paging.done)
	return s.paging.demand.Close()
}

func (s *session) faults() wire.Faults { return faultsOf(s.paging.pager.Stats()) }

// faultsOf is what the source is told of what a Pager has done.
func faultsOf(st postcopy.PagerStats) wire.Faults {
	us := func(d time.Duration) float64 { return float64(d) / float64(time.Microsecond) }
	var buckets []wire.FaultBucket
	for _, b := range st.Latency.Buckets {
		buckets = append(buckets, wire.FaultBucket{UpToUS: us(b.UpTo), Count: b.Count})
	}
	lines := st.Lines
	return wire.Faults{
		Lines: lines.Faults, LinesLate: lines.Late, LineBytes: lines.Bytes, PagesRest: lines.PagesRest,
		LineP50US: us(lines.Latency.P50), LineP99US: us(lines.Latency.P99), LineMaxUS: us(lines.Latency.Max),
		RestP50US: us(lines.RestLatency.P50), RestP99US: us(lines.RestLatency.P99), RestMaxUS: us(lines.RestLatency.Max),
		Buckets: buckets,
		Count:   st.Faults, Stocked: st.FaultsStocked, AskedP50US: us(st.AskedLatency.P50), AskedP99US: us(st.AskedLatency.P99),
		P50US: us(st.Latency.P50), P99US: us(st.Latency.P99), MaxUS: us(st.Latency.Max),
		PrefetchHits: st.FaultsCaught, Prefetched: st.PredictedAsked, Background: st.PagesBackground, Late: st.PagesLate,
		PredictedStored: st.PagesPredicted, PredictedRight: st.PredictedRight, PredictedWrong: st.PredictedWrong,
	}
}

// recover waits for the source on new connections.
func (s *session) recover() error {
	var dead <-chan struct{}
	if s.watch != nil {
		dead = s.watch.Done()
	}
	for {
		select {
		case v := <-s.paging.recoveries:
			s.replace(v)
			s.expectStreams()
			if err := s.welcome(v); err != nil {
				s.log.Debugf("migration: %v", err)
				continue
			}
			return nil
		case <-dead:
			return fmt.Errorf("%w: the source died before all memory had come", ErrMemoryLost)
		case <-s.l.ctx.Done():
			return context.Cause(s.l.ctx)
		}
	}
}

// welcome tells the source what is still absent.
func (s *session) welcome(v *visitor) error {
	if err := v.send(wire.TypeHello, s.l.hello(v)); err != nil {
		return err
	}
	return v.sendBytes(wire.TypeAbsent, wire.AppendAbsent(nil, s.paging.pager.Absent().Range))
}

// recovered takes a source's new main connection. For any goroutine.
func (s *session) recovered(ctx context.Context, v *visitor) {
	s.interrupt() // the newest connection counts
	select {
	case s.paging.recoveries <- v:
	case <-s.paging.done: // only COMPLETE was lost
		if err := s.tellComplete(ctx, v); err != nil {
			s.log.Debugf("migration: the source does not know yet that all memory is here: %v", err)
		}
		v.close() // nobody else has it
	case <-ctx.Done():
		s.l.refuse(v, "the guest here can't go on with a new connection yet: try again")
	}
}

// tellComplete is the whole answer to a source that has not heard that it is not needed any more.
func (s *session) tellComplete(ctx context.Context, v *visitor) error {
	if err := v.send(wire.TypeHello, s.l.hello(v)); err != nil {
		return err
	}
	if err := v.sendBytes(wire.TypeAbsent, nil); err != nil {
		return err
	}
	if err := v.send(wire.TypeComplete, s.paging.complete); err != nil {
		return err
	}
	return s.hearDone(ctx, v)
}
