package migration

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/fineline-vmm/fineline/memory"
	"github.com/fineline-vmm/fineline/migration/inject"
	"github.com/fineline-vmm/fineline/migration/wire"
)

// keeper is the source's end of the reverse stream. A goroutine of it takes checkpoints, each of which changes
// the source's memory and state when it is whole, and not before.
type keeper struct {
	s   *sender
	mem *memory.Guest

	saying sync.Mutex    // one frame at a time
	came   atomic.Uint64 // bytes, from the destination
	taken  atomic.Uint64 // checkpoints
	signs  chan struct{} // capacity 1: there is another checkpoint, or connection

	mu       sync.Mutex // guards what follows
	conn     *stream    // nil while there is none
	lastCall time.Time  // until when what comes still counts, once no more is wanted; zero before
	dial     func(context.Context) (net.Conn, error)
	status   StandbyStatus
	at       time.Duration // by the clock, of the newest checkpoint
	period   time.Duration // until the next one begins, at least
	state    []byte        // of the newest checkpoint; nil: the machine is as it was at the switch

	stop  context.Context // ends when no more checkpoints are wanted
	quit  context.CancelFunc
	ended chan struct{} // closed when the destination says that there is nothing to go on with any more
	done  chan struct{} // closed when the goroutine has ended
}

func newKeeper(s *sender) *keeper {
	k := &keeper{s: s, mem: s.src.Memory(), dial: s.dial, signs: make(chan struct{}, 1), ended: make(chan struct{}), done: make(chan struct{})}
	k.stop, k.quit = context.WithCancel(context.Background())
	return k
}

// errEnded: the destination's guest has ended, or moves on.
var errEnded = errors.New("the guest has ended at the destination, or leaves it")

// connect opens the reverse stream.
func (k *keeper) connect(ctx context.Context) (*stream, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, k.s.opts.PeerTimeout, ErrPeerSilent)
	defer cancel()
	k.mu.Lock()
	dial := k.dial
	k.mu.Unlock()
	conn, err := dial(ctx)
	if err != nil {
		return nil, err
	}
	st := newStream(conn, k.s.opts.PeerTimeout, &k.s.streamed)
	if err := k.s.greetStream(ctx, st, k.s.hello(wire.PurposeReverse)); err != nil {
		_ = conn.Close()
		return nil, err
	}
	return st, nil
}

// open makes the first connection, while the guest still runs here.
func (k *keeper) open(ctx context.Context) error {
	st, err := k.connect(ctx)
	if err != nil {
		return fmt.Errorf("reverse stream: %w", err)
	}
	k.use(st)
	return nil
}

// use puts a connection, or none, in the place of the one before.
func (k *keeper) use(st *stream) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.conn != nil {
		_ = k.conn.conn.Close()
	}
	k.conn = st
	k.status.Connected = st != nil
	k.sign()
}

// sign wakes who waits in answers.
func (k *keeper) sign() {
	select {
	case k.signs <- struct{}{}:
	default: // it is told already
	}
}

// answers reports whether the destination is alive on the stream that there is: of two checkpoints the second was begun after
// the first was acknowledged here, and what comes PeerTimeout later was not on its way already. Neither its word nor its
// silence holds whoever asks for more than twice that; it may come before, with the end of the stream, of the guest there or,
// when dead is closed, of the destination. For one goroutine at a time.
func (k *keeper) answers(dead <-chan struct{}) bool {
	half := time.NewTicker(k.s.opts.PeerTimeout)
	defer half.Stop()
	taken, came := k.taken.Load(), k.came.Load()
	for second := false; k.current() != nil; {
		select {
		case <-k.signs:
			if k.taken.Load() > taken+1 {
				return true
			}
		case <-half.C:
			if second {
				return k.came.Load() != came
			}
			second, came = true, k.came.Load()
		case <-k.ended:
			return false
		case <-dead:
			return false
		}
	}
	return false
}

func (k *keeper) current() *stream {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.conn
}

// begin takes checkpoints from now on: the guest has moved.
func (k *keeper) begin() {
	k.mu.Lock()
	k.at = k.s.clock.Now()
	k.mu.Unlock()
	go k.run()
}

func (k *keeper) run() {
	defer close(k.done)
	var retry backoff
	for k.stop.Err() == nil {
		st := k.current()
		if st == nil {
			if k.s.clock.Sleep(k.stop, retry.next()) != nil {
				return
			}
			var err error
			if st, err = k.connect(k.stop); err != nil {
				k.s.opts.Log.Debugf("migration: no reverse stream: %v", err)
				continue
			}
			k.use(st)
		}
		before := k.Status().Checkpoint
		err := k.read(st)
		if errors.Is(err, errEnded) {
			close(k.ended)
			return // the connection stays, for the last word
		}
		k.s.opts.Log.Debugf("migration: the reverse stream is lost: %v", err)
		k.use(nil)
		if k.Status().Checkpoint > before {
			retry.reset()
		}
	}
}

// lastBytes bounds the wait for what a destination that is gone has still sent.
const lastBytes = time.Second

// end takes no more checkpoints. What has come whole counts.
func (k *keeper) end() {
	k.mu.Lock()
	k.lastCall = time.Now().Add(lastBytes)
	if k.conn != nil {
		_ = k.conn.conn.SetReadDeadline(k.lastCall) // fails only when closed, as will the read
	}
	k.mu.Unlock()
	k.quit()
	<-k.done
}

// sayDone tells the destination that nothing is kept any more, which is all that it still needs: what it says meanwhile
// does not matter. It reports whether there was a connection for it.
func (k *keeper) sayDone() bool {
	st := k.current()
	return st != nil && k.say(st, func(w *wire.Writer) error { return w.Signal(wire.TypeDone) }) == nil
}

// farewell is sayDone after end, on a new connection: there was none just then, or the destination had just closed it, which a
// write does not always show. One that has heard it already takes no connection, or hears it twice.
func (k *keeper) farewell() bool {
	ctx, cancel := context.WithTimeout(context.Background(), lastBytes)
	defer cancel()
	st, err := k.connect(ctx)
	if err != nil {
		return false
	}
	k.use(st)
	if !k.sayDone() {
		return false
	}
	_ = st.conn.SetReadDeadline(time.Now().Add(lastBytes)) // fails only when closed, as will the read
	_, _ = io.Copy(io.Discard, st.conn)                    // closed with bytes unread, a socket may drop the word
	return true
}

// patientReader reads a connection that may be silent for so long; a frame may take longer.
type patientReader struct {
	k    *keeper
	conn net.Conn
}

func (p patientReader) Read(b []byte) (int, error) {
	p.k.patience(p.conn)
	n, err := p.conn.Read(b)
	p.k.came.Add(uint64(n))
	return n, err
}

// patience lets the connection be silent for so long from now.
func (k *keeper) patience(conn net.Conn) {
	k.mu.Lock()
	defer k.mu.Unlock()
	until := k.lastCall
	if until.IsZero() {
		until = time.Now().Add(k.s.opts.PeerTimeout + max(k.s.opts.Standby.interval, k.period))
	}
	_ = conn.SetReadDeadline(until) // fails only when closed, as will the read
}

// redirect makes later connections go by another way. For any goroutine.
func (k *keeper) redirect(dial func(context.Context) (net.Conn, error)) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.dial = dial
}

// keeperReadBytes holds the small frames around a checkpoint's pages.
const keeperReadBytes = 4 << 10

// read takes checkpoints until the connection ends, and returns why.
func (k *keeper) read(st *stream) error {
	if err := k.acknowledge(st, k.Status().Checkpoint); err != nil {
		return err
	}
	st.r.ReadAhead(patientReader{k, st.conn}, keeperReadBytes)
	for {
		f, err := next(st, wire.TypeCheckpoint)
		if err != nil {
			return err
		}
		begin, err := wire.Decode[wire.Checkpoint](f)
		if err != nil {
			return err
		}
		if err := k.checkpoint(st, begin.Number); err != nil {
			return err
		}
		if err := k.acknowledge(st, begin.Number); err != nil {
			return err
		}
	}
}

// next reads a frame of one of the types. ENDED may come at any time.
func next(st *stream, types ...wire.Type) (wire.Frame, error) {
	f, err := st.r.Next(wire.Of(append(types, wire.TypeEnded)...))
	if err != nil {
		return f, connectionError(err)
	}
	if f.Type == wire.TypeEnded {
		return f, errEnded
	}
	return f, nil
}

func (k *keeper) acknowledge(st *stream, number uint64) error {
	return k.say(st, func(w *wire.Writer) error {
		return w.Message(wire.TypeCheckpointAck, wire.Checkpoint{Number: number})
	})
}

// say sends one frame. For any goroutine.
func (k *keeper) say(st *stream, write func(*wire.Writer) error) error {
	k.saying.Lock()
	defer k.saying.Unlock()
	return st.send(context.Background(), write)
}

// checkpoint takes one. Its pages wait here until it is whole: at most all of RAM, since no page comes twice.
func (k *keeper) checkpoint(st *stream, number uint64) error {
	if has := k.Status().Checkpoint; number <= has {
		return fmt.Errorf("%w: checkpoint %d after %d", wire.ErrProtocol, number, has)
	}
	in := &incomplete{mem: k.mem, pages: k.mem.NewPageSet()}
	var state []byte
	for state == nil {
		f, err := next(st, wire.TypePages, wire.TypePagesZstd, wire.TypeState)
		switch {
		case err != nil:
			return err
		case f.Type == wire.TypeState:
			state = append([]byte{}, f.Payload...)
			in.bytes += uint64(len(f.Payload))
		default:
			if err := in.add(f.Payload); err != nil {
				return err
			}
			in.bytes += uint64(f.WireBytes)
		}
	}
	f, err := next(st, wire.TypeCheckpointEnd)
	if err != nil {
		return err
	}
	end, err := wire.Decode[wire.CheckpointEnd](f)
	if err != nil {
		return err
	}
	if end.Number != number || end.Pages != in.content || end.ZeroPages != in.zeros {
		return fmt.Errorf("%w: checkpoint %d with %d pages and %d zero pages ends as %d with %d and %d",
			wire.ErrProtocol, number, in.content, in.zeros, end.Number, end.Pages, end.ZeroPages)
	}
	if err := k.s.plan.At(inject.SourceCheckpoint, func() { _ = st.conn.Close() }); err != nil {
		return err
	}
	if err := in.apply(); err != nil {
		return err // a bug of ours, or memory that is closed: all was checked
	}
	k.keep(end, state, in.bytes)
	return nil
}

// keep makes a checkpoint that was applied the one to go on from.
func (k *keeper) keep(end *wire.CheckpointEnd, state []byte, bytes uint64) {
	k.mu.Lock()
	defer k.mu.Unlock()
	now := k.s.clock.Now()
	k.status.IntervalMS = milliseconds(now - k.at)
	k.state, k.at, k.period = state, now, time.Duration(end.PeriodMS)*time.Millisecond
	k.status.add(end, bytes)
	k.taken.Add(1)
	k.sign()
}

// Status is the present one.
func (k *keeper) Status() StandbyStatus {
	k.mu.Lock()
	defer k.mu.Unlock()
	st := k.status
	if k.at > 0 {
		st.AgeMS = milliseconds(k.s.clock.Now() - k.at)
	}
	return st
}

// incomplete is a checkpoint of which more is to come. Every record is checked as it comes, so that to apply them
// can't fail half way.
type incomplete struct {
	mem            *memory.Guest
	pages          *memory.PageSet // that have come
	frames         [][]byte
	content, zeros uint64
	bytes          uint64 // as they came
}

func (c *incomplete) add(payload []byte) error {
	if len(payload) == 0 {
		return nil
	}
	payload = bytes.Clone(payload)
	err := wire.EachRecord(payload, func(rec wire.Record) error {
		c.content += uint64(rec.Count)
		if rec.Kind == wire.KindZero {
			c.content -= uint64(rec.Count)
			c.zeros += uint64(rec.Count)
		}
		if rec.Kind != wire.KindLines {
			return c.admit(rec.First, uint64(rec.Count))
		}
		return rec.EachEntry(func(page uint64, _ wire.LineBody) error { return c.admit(page, 1) })
	})
	c.frames = append(c.frames, payload)
	return err
}

// admit takes pages that must be RAM and must not have come before.
func (c *incomplete) admit(first, count uint64) error {
	gpa := memory.GPA(first * memory.PageSize)
	if count > c.mem.Pages() || !c.mem.Contains(gpa, count*memory.PageSize) {
		return fmt.Errorf("%w: %d pages at %#x of a checkpoint are not in the machine's memory", wire.ErrProtocol, count, uint64(gpa))
	}
	for n := range count {
		page := gpa + memory.GPA(n*memory.PageSize)
		if c.pages.Has(page) {
			return fmt.Errorf("%w: page %#x comes twice in a checkpoint", wire.ErrProtocol, uint64(page))
		}
		c.pages.AddRange(page, memory.PageSize)
	}
	return nil
}

// apply stores the checkpoint in the source's memory.
func (c *incomplete) apply() error {
	for _, payload := range c.frames {
		if err := wire.EachRecord(payload, c.store); err != nil {
			return err
		}
	}
	return nil
}

func (c *incomplete) store(rec wire.Record) error {
	gpa := memory.GPA(rec.First * memory.PageSize)
	switch rec.Kind {
	case wire.KindData:
		return c.mem.WriteAt(gpa, rec.Data)
	case wire.KindZero:
		for n := range memory.GPA(rec.Count) {
			err := c.mem.EditPage(gpa+n*memory.PageSize, func(page []byte) error {
				clear(page)
				return nil
			})
			if err != nil {
				return err
			}
		}
		return nil
	}
	return rec.EachEntry(func(page uint64, lines wire.LineBody) error {
		return c.mem.EditPage(memory.GPA(page*memory.PageSize), lines.Apply)
	})
}

// cut breaks the connection, for tests.
func (k *keeper) cut() {
	if st := k.current(); st != nil {
		_ = st.conn.Close()
	}
}

// doubt shows why the guest is not resumed.
func (k *keeper) doubt(why error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.status.Doubt = why.Error()
}
