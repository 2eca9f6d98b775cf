package migration

import (
	"encoding/json"
	"errors"
	"io"
	"net"
	"testing"
	"time"

	"github.com/fineline-vmm/fineline/memory"
	"github.com/fineline-vmm/fineline/migration/wire"
)

// hostileKeeper is a source that keeps its guest, and a connection on which the test is its destination.
func hostileKeeper(t *testing.T, timeout time.Duration) (*keeper, *stream, net.Conn) {
	t.Helper()
	p, st := keptPair(t, wire.ModePrecopy)
	p.opts.PeerTimeout = timeout
	p.opts.hooks = p.src.hooks
	to, err := ParseAddress("unix:" + t.TempDir() + "/nobody")
	if err != nil {
		t.Fatal(err)
	}
	s, err := newSender(p.src, to, p.opts)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.base.free)
	p.src.end()
	here, there := net.Pipe()
	t.Cleanup(func() {
		here.Close()
		there.Close()
	})
	_ = st
	return s.keeper, newStream(here, timeout, &s.streamed), there
}

// TestHostileCheckpoints: whatever a destination sends, nothing of a checkpoint that is not whole and right reaches the
// source's memory, and the one before it counts.
func TestHostileCheckpoints(t *testing.T) {
	page := record(wire.KindData, 1, 1, 1)
	begin := func(n uint64) step { return sendMessage(wire.TypeCheckpoint, wire.Checkpoint{Number: n}) }
	state := sendBytes(wire.TypeState, []byte(`{"steps":7}`))
	end := func(n, pages, zeros uint64) step {
		return sendMessage(wire.TypeCheckpointEnd, wire.CheckpointEnd{Number: n, Pages: pages, ZeroPages: zeros})
	}
	pages := func(b []byte) step { return sendBytes(wire.TypePages, b) }
	for name, steps := range map[string][]step{
		"page at once":        {pages(page)},
		"state at once":       {state},
		"end at once":         {end(1, 0, 0)},
		"number 0":            {begin(0), state, end(0, 0, 0)},
		"begun twice":         {begin(1), begin(2)},
		"no state":            {begin(1), pages(page), end(1, 1, 0)},
		"state twice":         {begin(1), state, state},
		"page after state":    {begin(1), state, pages(page)},
		"other number":        {begin(1), pages(page), state, end(2, 1, 0)},
		"next one too late":   {begin(1), pages(page), state, sendMessage(wire.TypeCheckpointEnd, wire.CheckpointEnd{Number: 1, Pages: 1, PeriodMS: wire.MaxCheckpointMS + 1})},
		"miscounted":          {begin(1), pages(page), state, end(1, 2, 0)},
		"zeros miscounted":    {begin(1), pages(record(wire.KindZero, 1, 1, 0)), state, end(1, 1, 0)},
		"page twice":          {begin(1), pages(join(page, page))},
		"page twice later":    {begin(1), pages(page), pages(record(wire.KindZero, 1, 1, 0))},
		"page beyond memory":  {begin(1), pages(record(wire.KindData, 1<<40, 1, 1))},
		"page in the gap":     {begin(1), pages(record(wire.KindData, testPages/2, 1, 1))},
		"run over the end":    {begin(1), pages(record(wire.KindData, testPages/2-1, 2, 2))},
		"zeros without end":   {begin(1), pages(record(wire.KindZero, 0, 1<<32-1, 0))},
		"page cut short":      {begin(1), pages(page[:100])},
		"lines of nothing":    {begin(1), pages(record(wire.KindLines, 1, 1, 0))},
		"good, then bad":      {begin(1), pages(join(page, record(77, 2, 1, 1)))},
		"torn after pages":    {begin(1), pages(page)},
		"torn after state":    {begin(1), pages(page), state},
		"noise":               {begin(1), sendRaw([]byte("noise, and more of it than a header has"))},
		"hello":               {sendMessage(wire.TypeHello, hostileHello())},
		"half a frame":        {begin(1), sendRaw([]byte("FLMG\x02\x00"))},
		"ended in the middle": {begin(1), pages(page), sendBytes(wire.TypeEnded, nil)},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			k, st, there := hostileKeeper(t, 5*time.Second)
			before := checksum(k.mem)
			go func() { _, _ = io.Copy(io.Discard, there) }() // acknowledgements
			sent := make(chan error, 1)
			go func() {
				err := newRawWriter(there).play(steps...)
				there.Close()
				sent <- err
			}()
			err := k.read(st)
			_ = st.conn.Close()
			<-sent
			if err == nil {
				t.Error("no error")
			}
			if name == "ended in the middle" && !errors.Is(err, errEnded) {
				t.Errorf("%v", err)
			}
			if s := k.Status(); s.Checkpoint != 0 || k.state != nil {
				t.Errorf("it counts: %+v", s)
			}
			if checksum(k.mem) != before {
				t.Error("the memory has changed")
			}
		})
	}
}

// TestGoodThenTorn: the checkpoint before a torn one stays whole.
func TestGoodThenTorn(t *testing.T) {
	k, st, there := hostileKeeper(t, 5*time.Second)
	go func() { _, _ = io.Copy(io.Discard, there) }()
	go func() {
		_ = newRawWriter(there).play(
			sendMessage(wire.TypeCheckpoint, wire.Checkpoint{Number: 3}),
			sendBytes(wire.TypePages, record(wire.KindData, 1, 1, 1)), sendBytes(wire.TypeState, []byte(`{"steps":7}`)),
			sendMessage(wire.TypeCheckpointEnd, wire.CheckpointEnd{Number: 3, Pages: 1}),
			sendMessage(wire.TypeCheckpoint, wire.Checkpoint{Number: 4}),
			sendBytes(wire.TypePages, record(wire.KindZero, 1, 1, 0)), sendBytes(wire.TypeState, []byte(`{"steps":8}`)),
		)
		there.Close()
	}()
	if err := k.read(st); !errors.Is(err, ErrConnectionLost) {
		t.Fatalf("%v", err)
	}
	_ = st.conn.Close()
	var g guestState
	if err := json.Unmarshal(k.state, &g); err != nil || g.Steps != 7 || k.Status().Checkpoint != 3 {
		t.Errorf("%v %+v %+v", err, g, k.Status())
	}
	if b, err := k.mem.LoadUint64(memory.PageSize); err != nil || b != 0xeeeeeeeeeeeeeeee {
		t.Errorf("page 1 begins with %#x, %v", b, err)
	}
}

// TestSilentReverseStream: a destination that says nothing is given up, and asked on a new connection.
func TestSilentReverseStream(t *testing.T) {
	k, st, there := hostileKeeper(t, 50*time.Millisecond)
	go func() { _, _ = io.Copy(io.Discard, there) }()
	if err := k.read(st); !errors.Is(err, ErrConnectionLost) {
		t.Errorf("%v", err)
	}
	_ = st.conn.Close()
}

// TestHostileKeptSource: whatever a source says on the reverse stream, the guest at the destination goes on.
func TestHostileKeptSource(t *testing.T) {
	for name, steps := range map[string][]step{
		"a checkpoint from the future": {sendMessage(wire.TypeCheckpointAck, wire.Checkpoint{Number: 1 << 60})},
		"a page":                       {sendBytes(wire.TypePages, record(wire.KindData, 1, 1, 1))},
		"noise":                        {sendRaw([]byte("noise, and more of it than a header has"))},
		"nothing":                      {},
		"acknowledged twice": {
			sendMessage(wire.TypeCheckpointAck, wire.Checkpoint{}), sendMessage(wire.TypeCheckpointAck, wire.Checkpoint{}),
			sendMessage(wire.TypeCheckpointAck, wire.Checkpoint{}), sendMessage(wire.TypeCheckpointAck, wire.Checkpoint{}),
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p, st := keptPair(t, wire.ModePostcopy)
			out := p.migrate()
			if out.sendErr != nil {
				t.Fatal(out.sendErr)
			}
			ended := p.wait(st)
			p.awaitCheckpoint(st, 1)
			conn := p.stranger()
			hello := hostileHello()
			hello.Purpose, hello.Process, hello.Journal = wire.PurposeReverse, p.src.process, p.src.journal.Path()
			_ = newRawWriter(conn).play(append([]step{sendMessage(wire.TypeHello, hello)}, steps...)...)
			p.awaitCheckpoint(st, st.Status().Checkpoint+3) // the true source comes back
			p.killDestination()
			p.wantResumed(ended)
		})
	}
}

// tricklingConn brings a byte at each read, and writes down the deadlines for reads.
type tricklingConn struct {
	net.Conn
	deadlines int
}

func (c *tricklingConn) Read(b []byte) (int, error) { return c.Conn.Read(b[:min(1, len(b))]) }

func (c *tricklingConn) SetReadDeadline(at time.Time) error {
	c.deadlines++
	return c.Conn.SetReadDeadline(at)
}

// TestSlowReverseStream: a frame of a checkpoint may take as long as it likes, while something comes.
func TestSlowReverseStream(t *testing.T) {
	k, st, there := hostileKeeper(t, 5*time.Second)
	slow := &tricklingConn{Conn: st.conn}
	go func() { _, _ = io.Copy(io.Discard, there) }()
	const stateBytes = 1000
	go func() {
		w := newRawWriter(there)
		for _, step := range []step{
			sendMessage(wire.TypeCheckpoint, wire.Checkpoint{Number: 1}), sendBytes(wire.TypeState, make([]byte, stateBytes)),
			sendMessage(wire.TypeCheckpointEnd, wire.CheckpointEnd{Number: 1}),
		} {
			if err := step(w); err != nil {
				t.Error(err)
			}
		}
		there.Close()
	}()
	if err := k.read(newStream(slow, 5*time.Second, &k.s.streamed)); !errors.Is(err, ErrConnectionLost) {
		t.Error(err)
	}
	if k.Status().Checkpoint != 1 || slow.deadlines < stateBytes {
		t.Errorf("%+v after %d deadlines", k.Status(), slow.deadlines)
	}
}
