package migration

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/fineline-vmm/fineline/memory"
	"github.com/fineline-vmm/fineline/migration/identity"
	"github.com/fineline-vmm/fineline/migration/inject"
	"github.com/fineline-vmm/fineline/migration/journal"
	"github.com/fineline-vmm/fineline/migration/postcopy"
	"github.com/fineline-vmm/fineline/migration/wire"
)

// Send moves the running machine to the destination that listens at the address. It returns a result
// in every case. With a nil error the guest belongs to the destination and src was released. With an
// *InDoubtError the guest is paused and its fate open; with ErrDestinationDied or ErrNotStarted src was
// released, too. With any other error the guest runs at the source as if nothing had happened; the
// end of ctx is such an error, until the commit, from which on ctx means nothing.
func Send(ctx context.Context, src Source, to Address, opts SendOptions) (*Result, error) {
	s, err := newSender(src, to, opts)
	if err != nil {
		return &Result{Status: StatusFailed, Mode: string(opts.Mode), Granularity: string(opts.Granularity), Phases: []PhaseTime{}, Rounds: []Round{}, Error: err.Error()}, err
	}
	return s.finish(s.run(ctx))
}

// sender is one hand-over at its source. Its methods run in the goroutine of Send, or say otherwise; pumps, the paused
// round, what hears and reports while serving, and the keeper have goroutines of their own.
type sender struct {
	src  Source
	to   Address
	opts SendOptions
	hooks

	generation uint64
	peer       *wire.Hello    // what the destination said it is
	watch      identity.Watch // of the destination's process; nil when its death cannot be proved
	link       *link          // the newest connection; nil before the first
	roundTrip  time.Duration  // the shortest seen
	fsync      time.Duration  // of one durable record
	durable    chan error     // yields whether "paused" is; from the pause on

	streams  []*stream     // beside link; closed with it
	streamed atomic.Uint64 // bytes over them

	base     *baselines
	pumps    []*pump // the first sends over link, the others over streams
	limit    *throttle
	gathered atomic.Uint64 // pages of this round, see pump
	tracker  *memory.Tracker
	dirty    *memory.PageSet // what the next round sends

	postcopy   bool             // memory goes on moving after the guest
	keeper     *keeper          // nil: this process does not keep the guest
	takingOver *ask             // in post-copy: who declared the destination dead
	server     *postcopy.Server // of what is left then
	serving    serving
	retry      backoff // of connections in post-copy
	lacked     uint64  // pages, when the destination said so last

	throttledAt int // rounds when the guest was slowed down last

	// What the ownership law asks about.
	paused    bool
	stateSent bool // STATE has begun to leave: the destination may be ready
	commit    bool // COMMIT may have left
	discarded bool // the destination will never run the guest: it said so, or it is proved
	gaveAway  bool // the guest is the destination's: it said so, or it is proved
	released  bool // src was
	byHand    bool // discarded or gaveAway is a human's word
	commanded bool // COMMIT was sent again since settle began
	settling  bool // settle asks

	time     *timeline
	cpu      cpuMeter
	result   Result
	earlier  uint64 // bytes sent over connections before the newest
	reporter reporter
}

func newSender(src Source, to Address, opts SendOptions) (*sender, error) {
	if err := opts.complete(to); err != nil {
		return nil, err
	}
	if len(opts.MachineID) > wire.MaxMachineIDBytes {
		return nil, fmt.Errorf("machine id of %d bytes: the limit is %d", len(opts.MachineID), wire.MaxMachineIDBytes)
	}
	if err := opts.checkStandby(src); err != nil {
		return nil, err
	}
	last := opts.Journal.LastGeneration(opts.MachineID)
	if last >= wire.MaxGeneration {
		return nil, fmt.Errorf("the journal %s says that machine %s has had %d migrations; there are at most %d",
			opts.Journal.Path(), opts.MachineID, last, uint64(wire.MaxGeneration))
	}
	mem := src.Memory()
	s := &sender{
		src: src, to: to, opts: opts, hooks: opts.hooks,
		// Each attempt has a generation of its own, so that no answer about one is taken for another's.
		generation: last + 1,
		tracker:    mem.Track(src.DirtySource()),
		dirty:      mem.NewPageSet(),
		time:       newTimeline(opts.hooks.clock),
		cpu:        newCPUMeter(src),
	}
	s.makePumps(mem)
	if opts.Standby != nil {
		s.keeper = newKeeper(s)
	}
	s.result = Result{
		Mode: string(opts.Mode), Granularity: string(opts.Granularity), Rounds: []Round{},
		MachineID: opts.MachineID, Generation: s.generation,
	}
	if s.local() {
		s.result.Granularity = "none"
	}
	return s, nil
}

// makePumps makes a worker for each stream. They share the baselines and the bandwidth limit.
func (s *sender) makePumps(mem *memory.Guest) {
	budget := s.opts.BaselineBudgetBytes
	setDefault(&budget, mem.SizeBytes()/2)
	s.base = newBaselines(mem, s.opts.Baseline, budget)
	limit := &throttle{clock: s.clock, bytesPerS: s.opts.MaxBandwidthBytesPerS}
	s.limit = limit
	for i := range s.opts.Streams {
		enc := &encoder{base: s.base, lines: s.opts.Granularity == GranularityLine}
		write := func(ctx context.Context, b *wire.Batch) error { return s.writeBatch(ctx, limit, i, b) }
		p := newPump(mem, enc, limit.batchBytes(pumpBatchBytes), &s.gathered, write)
		p.comp.choice = s.opts.Compression
		s.pumps = append(s.pumps, p)
	}
}

// run performs the hand-over, or undoes it.
func (s *sender) run(ctx context.Context) error {
	bounded, cancel := context.WithTimeoutCause(ctx, s.opts.Timeout,
		fmt.Errorf("%w (%v); raise the timeout, the bandwidth or the downtime", ErrTimeout, s.opts.Timeout))
	defer cancel()
	if err := s.step(bounded, s.preflight); err != nil {
		return s.abandon(ctx, err)
	}
	if s.opts.Accepted != nil {
		s.opts.Accepted()
	}
	if s.opts.TimeoutStrategy == TimeoutIgnore {
		bounded = ctx // what was promised by the destination is carried through
	}
	for _, step := range []func(context.Context) error{s.precopy, s.stopAndCopy, s.prepareCommit} {
		if err := s.step(bounded, step); err != nil {
			return s.abandon(ctx, err)
		}
	}
	return s.commitAndSettle()
}

// step runs one. What it fails with when it is interrupted ("i/o timeout") is not the cause.
func (s *sender) step(ctx context.Context, step func(context.Context) error) error {
	err := step(ctx)
	if cause := context.Cause(ctx); err != nil && cause != nil && !errors.Is(err, cause) {
		err = fmt.Errorf("%w: %w", cause, err)
	}
	return err
}

// preflight ends with a destination that has built the machine and promised to take it. Nothing of
// the guest was touched (rule 1).
func (s *sender) preflight(ctx context.Context) error {
	if err := s.time.enter(stagePreflight); err != nil {
		return err
	}
	s.report(true)
	if err := s.note(journal.Preflight, ""); err != nil {
		return err
	}
	if err := s.connect(ctx, wire.PurposeMigrate); err != nil {
		return err
	}
	if err := s.inject(inject.SourcePreflight); err != nil {
		return err
	}
	description, err := s.src.Description()
	if err != nil {
		return fmt.Errorf("cannot describe this machine: %w", err)
	}
	if err := s.link.send(ctx, func(w *wire.Writer) error { return w.Bytes(wire.TypeDescription, description) }); err != nil {
		return err
	}
	if s.local() {
		if err := s.lendMemory(ctx); err != nil {
			return err
		}
	}
	// Building a large machine takes its time, and the guest runs: no limit but the migration's.
	if _, err = s.link.await(ctx, wire.TypeAccept); err != nil {
		return err
	}
	return s.openOthers(ctx)
}

// connect opens a connection and exchanges HELLO. It leaves the connection in s.link.
func (s *sender) connect(ctx context.Context, purpose wire.Purpose) error {
	s.closeLink()
	dialCtx, cancel := context.WithTimeout(ctx, s.opts.PeerTimeout)
	defer cancel()
	conn, err := s.dial(dialCtx)
	if err != nil {
		return err
	}
	s.link = newLink(conn, s.opts.PeerTimeout)
	began := s.clock.Now()
	hello := s.hello(purpose)
	err = s.link.send(ctx, func(w *wire.Writer) error {
		if err := w.Message(wire.TypeHello, hello); err != nil || purpose != wire.PurposeResolve {
			return err
		}
		return w.Signal(wire.TypeResolve)
	})
	if err != nil {
		return err
	}
	f, err := s.link.expect(ctx, wire.TypeHello)
	if err != nil {
		return err
	}
	s.roundTrip = s.clock.Now() - began
	return s.greeted(f, purpose)
}

// hello is this side's first message of a connection.
func (s *sender) hello(purpose wire.Purpose) wire.Hello {
	h := wire.Hello{
		Purpose: purpose, Build: s.opts.Build, MachineID: s.opts.MachineID, Generation: s.generation,
		Process: *s.self, Journal: s.opts.Journal.Path(),
	}
	if purpose == wire.PurposeMigrate {
		h.Mode, h.Streams = s.opts.Mode, s.streamCount()
		if s.keeper != nil {
			h.CheckpointMS = int(s.opts.Standby.interval / time.Millisecond)
		}
	}
	return h
}

// answers reads a destination's HELLO. Who answers now need not be who accepted: rule 5 asks.
func (s *sender) answers(f wire.Frame, purpose wire.Purpose) (*wire.Hello, error) {
	peer, err := wire.Decode[wire.Hello](f)
	if err != nil {
		return nil, err
	}
	if peer.Purpose != purpose || peer.MachineID != s.opts.MachineID || peer.Generation != s.generation {
		return nil, fmt.Errorf("%w: HELLO answers another machine's", wire.ErrProtocol)
	}
	if purpose != wire.PurposeMigrate && peer.Process != s.peer.Process {
		return nil, errOtherProcess
	}
	return peer, nil
}

// greeted takes the destination's HELLO.
func (s *sender) greeted(f wire.Frame, purpose wire.Purpose) error {
	peer, err := s.answers(f, purpose)
	if err != nil || purpose != wire.PurposeMigrate {
		return err
	}
	s.peer = peer
	// Held from now on, while the destination is known to live: its number cannot be reused unseen.
	if s.watch, err = s.liveness.Watch(peer.Process); err != nil {
		s.watch = nil
		s.opts.Log.Debugf("migration: %v", err)
	}
	s.opts.Log.Infof("migration: machine %s leaves, generation %d, for build %q", s.opts.MachineID, s.generation, peer.Build)
	return nil
}

// errOtherProcess: somebody listens at the destination's address who is not the destination.
var errOtherProcess = errors.New("another process answers at the destination's address")

func (s *sender) closeLink() {
	if s.link == nil {
		return
	}
	s.link.close()
	s.earlier += s.link.written.Load()
	s.link = nil
	for _, st := range s.streams {
		_ = st.conn.Close()
	}
	s.streams = nil
}

// bytesSent counts everything that was put on the wire.
func (s *sender) bytesSent() uint64 {
	sum := s.earlier + s.streamed.Load()
	if s.link != nil {
		sum += s.link.written.Load()
	}
	return sum
}

func (s *sender) record(phase journal.Phase, reason string) journal.Record {
	return journal.Record{
		MachineID: s.opts.MachineID, Generation: s.generation, Side: journal.Source, Phase: phase, Note: reason,
	}
}

// note journals a phase without waiting for the disk; see "what is made durable when".
func (s *sender) note(phase journal.Phase, reason string) error {
	return s.opts.Journal.Note(s.record(phase, reason))
}

// inject lets a test fail the migration here.
func (s *sender) inject(point inject.Point) error {
	return s.plan.At(point, func() {
		if s.link != nil {
			_ = s.link.conn.Close()
		}
		for _, st := range s.streams {
			_ = st.conn.Close()
		}
		if s.keeper != nil {
			s.keeper.cut()
		}
	})
}

// unburden spares the guest the cost of dirty tracking, as soon as nothing needs it.
func (s *sender) unburden() {
	s.speedUp()
	if err := s.tracker.Stop(); err != nil {
		s.opts.Log.Warnf("migration: %v", err)
	}
}

// finish completes the result with the outcome.
func (s *sender) finish(err error) (*Result, error) {
	s.closeLink()
	doubt := errors.As(err, new(*InDoubtError))
	if !doubt {
		s.base.free() // else memory may be sent yet, against what went in the rounds
	}
	stands := s.stands(err) // then the rest is for the end of that
	if s.keeper != nil {
		s.result.KeepSource, s.result.Checkpoints = stands, s.keeper.Status().Checkpoint
		if !stands && !doubt {
			s.keeper.quit()
			s.keeper.use(nil)
		}
	}
	if !stands && !doubt && s.watch != nil {
		s.watch.Close()
		s.watch = nil
	}
	// A destination that is not ready discards by itself; any other reads our journal unless it knows.
	if !doubt && !stands && !s.byHand && (s.gaveAway || s.discarded || !s.stateSent) {
		s.opts.Journal.Settle(s.opts.MachineID, s.generation)
	}
	r := &s.result
	switch {
	case err == nil:
		r.Status = StatusCompleted
	case doubt:
		r.Status = StatusInDoubt
	case errors.As(err, new(*ResumedError)):
		r.Status = StatusResumed
	case r.Status == "":
		r.Status = StatusFailed
	}
	r.Error = ""
	if err != nil {
		r.Error = err.Error()
	}
	r.TotalMS = milliseconds(s.time.total(err != nil))
	r.SourceCPUMS = milliseconds(s.cpu.took())
	r.Phases = s.time.phases()
	r.BytesSent = s.bytesSent()
	r.BandwidthBytesPerS = bandwidth(r.Rounds)
	s.report(true)
	out := *r
	return &out, err
}
