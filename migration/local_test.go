package migration

import (
	"context"
	"errors"
	"fmt"
	"hash/maphash"
	"io"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/fineline-vmm/fineline/memory"
	"github.com/fineline-vmm/fineline/migration/wire"
)

// PrepareLocal makes the fake machine a LocalTarget.
func (m *machine) PrepareLocal(description []byte, files []int) (*memory.Guest, error) {
	if _, err := m.Prepare(description); err != nil {
		return nil, errors.Join(err, memory.CloseFiles(files))
	}
	mem, err := memory.NewFromFiles(testRegions(testPages), files, memory.Options{})
	if err != nil {
		m.built = false
		return nil, err
	}
	m.lent = append(m.lent, mem)
	m.mem = mem
	return mem, nil
}

var _ LocalTarget = (*machine)(nil)

var digestSeed = maphash.MakeSeed()

// digest sums up all RAM.
func digest(t testing.TB, mem *memory.Guest) uint64 { return digestFrom(t, mem, 0) }

// digestFrom sums up all RAM from an address on.
func digestFrom(t testing.TB, mem *memory.Guest, from memory.GPA) uint64 {
	t.Helper()
	var h maphash.Hash
	h.SetSeed(digestSeed)
	for _, r := range mem.Regions() {
		for off := uint64(0); off < r.SizeBytes; off += memory.PageSize {
			if r.Base+memory.GPA(off) < from {
				continue
			}
			if err := mem.ViewPage(r.Base+memory.GPA(off), func(page []byte) { _, _ = h.Write(page) }); err != nil {
				t.Fatal(err)
			}
		}
	}
	return h.Sum64()
}

// newLocalPair is a pair that hands its memory over, and watches that nobody but the guest changes it.
func newLocalPair(t *testing.T) *pair {
	t.Helper()
	p := newPair(t)
	p.opts.Mode = wire.ModeLocal
	fresh := digest(t, p.dst.mem)
	// What the guest does not write is as it was when it booted.
	cold := func() uint64 { return digestFrom(t, p.src.mem, memory.GPA(p.src.pages*memory.PageSize)) }
	booted := cold()
	var paused uint64
	p.src.onSave = func() error {
		if cold() != booted {
			t.Error("the memory was changed by another than the guest")
		}
		paused = digest(t, p.src.mem)
		return nil
	}
	p.src.onResume = func() error {
		if paused != 0 && digest(t, p.src.mem) != paused {
			t.Error("the memory was changed while the guest stood still at the source")
		}
		return nil
	}
	own := p.dst.mem
	p.dst.onRun = func() error {
		if digest(t, p.dst.mem) != paused {
			p.compared = errors.New("it is not what it was at the pause")
		}
		return nil
	}
	t.Cleanup(func() {
		p.src.end()
		p.dst.end()
		for _, mem := range p.dst.lent {
			if err := mem.Close(); err != nil {
				t.Error(err)
			}
		}
		if digest(t, own) != fresh {
			t.Error("memory that is not the guest's was written")
		}
	})
	return p
}

func TestLocal(t *testing.T) {
	p := newLocalPair(t)
	out := p.migrate()
	if out.sendErr != nil || out.gotErr != nil {
		t.Fatalf("send: %v; receive: %v", out.sendErr, out.gotErr)
	}
	p.verifyLaw(destination)
	r := out.sent
	if r.Mode != "local" || r.Granularity != "none" || !r.Converged || r.PagesSent != 0 || len(r.Rounds) != 0 || r.BytesSent > 16<<10 {
		t.Errorf("%+v", r)
	}
	if names := fmt.Sprint(r.Phases); !strings.Contains(names, "commit") {
		t.Errorf("phases %s", names)
	}
	// The source goes away, and takes nothing with it.
	p.dst.end()
	before := digest(t, p.dst.mem)
	if err := p.src.mem.Close(); err != nil {
		t.Fatal(err)
	}
	if digest(t, p.dst.mem) != before {
		t.Error("the guest's memory went with the source's")
	}
}

// TestLocalLawAtEveryPoint is TestLawAtEveryPoint where both sides have the same memory.
func TestLocalLawAtEveryPoint(t *testing.T) {
	cases := slices.DeleteFunc(lawCases(), func(c lawCase) bool {
		return c.mode != wire.ModePrecopy || onlyWith[c.point] != nil // there are no rounds
	})
	for i := range cases {
		cases[i].mode = wire.ModeLocal
	}
	eachLawCase(t, cases, func(t *testing.T, c lawCase) {
		newLocalPair(t).verifyCase(c, "unix:"+filepath.Join(t.TempDir(), "s"))
	})
}

// faultyUnix is a faultyConn through which descriptors pass.
type faultyUnix struct {
	faultyConn
	raw *net.UnixConn
}

func (c *faultyUnix) ReadMsgUnix(b, oob []byte) (int, int, int, *net.UnixAddr, error) {
	if c.f.next() {
		c.Close()
		return 0, 0, 0, nil, errNet
	}
	return c.raw.ReadMsgUnix(b, oob)
}

func (c *faultyUnix) WriteMsgUnix(b, oob []byte, addr *net.UnixAddr) (int, int, error) {
	if !c.f.next() {
		return c.raw.WriteMsgUnix(b, oob, addr)
	}
	n := 0
	if c.f.half { // the descriptors go with the first half
		n, _, _ = c.raw.WriteMsgUnix(b[:len(b)/2], oob, addr)
	}
	c.Close()
	return n, 0, errNet
}

// TestLocalFailEveryOperation is TestFailEveryOperation with a local hand-over; no descriptor stays behind.
func TestLocalFailEveryOperation(t *testing.T) {
	for _, half := range []bool{false, true} {
		t.Run(fmt.Sprintf("half=%v", half), func(t *testing.T) {
			before := openFiles(t)
			count := untilSuccess(t, func(p *pair, f *faults) {
				f.half = half
				p = newLocalPair(p.t)
				p.wrap = func(_ string, c net.Conn) net.Conn {
					return &faultyUnix{faultyConn{c, f}, c.(*net.UnixConn)}
				}
				p.verifyAgreement(p.migrate())
			})
			if count < 15 {
				t.Errorf("over after %d operations", count)
			}
			if after := openFiles(t); after != before {
				t.Errorf("%d memory files are open, %d were before", after, before)
			}
		})
	}
}

// openFiles counts the memory files of this process: a descriptor that a peer sent and nobody closed.
func openFiles(t testing.TB) int {
	t.Helper()
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for _, e := range entries {
		target, _ := os.Readlink("/proc/self/fd/" + e.Name())
		if strings.Contains(target, "fineline-ram") || strings.Contains(target, "pipe:") {
			n++
		}
	}
	return n
}

// localHello is a hostile source's.
func localHello() wire.Hello {
	h := hostileHello()
	h.Mode = wire.ModeLocal
	return h
}

// TestHostileLocalSources: what a source may pass in place of its memory. The destination refuses, closes
// all of it, and waits on.
func TestHostileLocalSources(t *testing.T) {
	mem, err := memory.New(testRegions(testPages), memory.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer mem.Close()
	var good []int
	_ = mem.LendFiles(func(fds []int) error {
		good = append(good, fds...) // they stay open as long as mem does
		return nil
	})
	var pipe [2]int
	if err := unix.Pipe2(pipe[:], unix.O_CLOEXEC); err != nil {
		t.Fatal(err)
	}
	defer unix.Close(pipe[0])
	defer unix.Close(pipe[1])
	many := make([]int, maxLent+1)
	for i := range many {
		many[i] = pipe[0]
	}
	state := sendBytes(wire.TypeState, []byte(`{}`))
	for name, steps := range map[string][]step{
		"none":                            {withFiles(wire.TypeMemory), state},
		"too few":                         {withFiles(wire.TypeMemory, good[0]), state},
		"too many":                        {withFiles(wire.TypeMemory, good[0], good[1], good[1]), state},
		"more than a frame takes":         {withFiles(wire.TypeMemory, many...), state},
		"swapped, one twice":              {withFiles(wire.TypeMemory, good[1], good[1]), state},
		"a pipe":                          {withFiles(wire.TypeMemory, good[0], pipe[1]), state},
		"a socket":                        {withFiles(wire.TypeMemory, good[0], -1), state},
		"frame: with another frame":       {withFiles(wire.TypeState, good...), state},
		"frame: no memory, but the state": {state},
		"frame: pages":                    {withFiles(wire.TypeMemory, good...), sendBytes(wire.TypePages, record(wire.KindData, 1, 1, 1))},
		"frame: a round":                  {withFiles(wire.TypeMemory, good...), sendMessage(wire.TypeRoundEnd, wire.RoundEnd{Round: 1, Paused: true})},
		"frame: memory twice":             {withFiles(wire.TypeMemory, good...), withFiles(wire.TypeMemory, good...)},
		"bad state":                       {withFiles(wire.TypeMemory, good...), sendBytes(wire.TypeState, []byte(`]`))},
		"gone":                            {withFiles(wire.TypeMemory, good...)},
		"aborted":                         {sendMessage(wire.TypeAbort, wire.NewReason("changed my mind", true))},
	} {
		t.Run(name, func(t *testing.T) {
			p := newLocalPair(t)
			p.listenUnix()
			before := openFiles(t)
			received := p.receiveInBackground(t.Context())
			conn := p.stranger()
			w := newRawWriter(&lendingWriter{conn: conn.(*net.UnixConn)})
			opening := []step{sendMessage(wire.TypeHello, localHello()), sendBytes(wire.TypeDescription, []byte(`{"shape":1}`))}
			_ = w.play(append(opening, steps...)...)
			_ = conn.(*net.UnixConn).CloseWrite()
			_, _ = io.Copy(io.Discard, conn)
			err := <-received
			if !isDiscarded(err) {
				t.Errorf("received: %v", err)
			}
			if outOfOrder := strings.HasPrefix(name, "frame: "); outOfOrder && !errors.Is(err, wire.ErrProtocol) {
				t.Errorf("received: %v, want a protocol error", err)
			}
			for _, mem := range p.dst.lent { // as a real target does when it discards
				if err := mem.Close(); err != nil {
					t.Error(err)
				}
			}
			if after := openFiles(t); after != before {
				t.Errorf("%d memory files and pipes are open, %d were before", after, before)
			}
			p.verifyLaw(source)
			if p.dst.owned || p.dst.built {
				t.Error("the machine was not discarded")
			}
		})
	}
}

// withFiles sends a frame with descriptors; -1 stands for the connection's own.
func withFiles(frame wire.Type, files ...int) step {
	return func(w *rawWriter) error {
		lender := w.out.(*lendingWriter)
		raw, err := lender.conn.SyscallConn()
		if err != nil {
			return err
		}
		sent := append([]int(nil), files...)
		if err := raw.Control(func(fd uintptr) {
			for i := range sent {
				if sent[i] < 0 {
					sent[i] = int(fd)
				}
			}
		}); err != nil {
			return err
		}
		lender.rights = unix.UnixRights(sent...)
		return w.Signal(frame)
	}
}

// lendingWriter attaches descriptors to its next write.
type lendingWriter struct {
	conn   *net.UnixConn
	rights []byte
}

func (l *lendingWriter) Write(p []byte) (int, error) {
	n, _, err := l.conn.WriteMsgUnix(p, l.rights, nil)
	l.rights = nil
	return n, err
}

// lateLender lends memory once the other side has done all it does.
type lateLender struct {
	*net.UnixConn
	over <-chan struct{}
}

func (l *lateLender) WriteMsgUnix(b, oob []byte, addr *net.UnixAddr) (int, int, error) {
	<-l.over
	return l.UnixConn.WriteMsgUnix(b, oob, addr)
}

// TestRefusedWhileLending: a refusal that comes before the memory is lent is what the user reads, not the broken pipe.
func TestRefusedWhileLending(t *testing.T) {
	p := newLocalPair(t)
	p.listenUnix()
	over := make(chan struct{})
	p.wrap = func(side string, c net.Conn) net.Conn {
		if side == source {
			return &lateLender{c.(*net.UnixConn), over}
		}
		return c
	}
	go func() {
		defer close(over)
		if _, err := p.l.Receive(t.Context(), plainTarget{p.dst}); !isDiscarded(err) {
			t.Errorf("receive: %v", err)
		}
	}()
	p.opts.hooks = p.src.hooks
	p.opts.hooks.dial = p.dial
	_, err := Send(p.ctx, p.src, p.l.Address(), p.opts)
	var refused *RefusedError
	if !errors.As(err, &refused) || !strings.Contains(err.Error(), "migrate without --local") {
		t.Errorf("send: %v", err)
	}
	p.verifyLaw(source)
}

// plainTarget is a Target that has no PrepareLocal.
type plainTarget struct{ Target }

// TestLocalRefused: what cannot be done is said before anything is touched.
func TestLocalRefused(t *testing.T) {
	for name, tc := range map[string]struct {
		arm  func(*pair) Target
		want string
	}{
		"a destination that cannot": {func(p *pair) Target { return plainTarget{p.dst} }, "migrate without --local"},
		"another shape": {func(p *pair) Target {
			p.dst.shape = []byte(`{"shape":2}`)
			return p.dst
		}, "this machine is"},
	} {
		t.Run(name, func(t *testing.T) {
			p := newLocalPair(t)
			p.listenUnix()
			target := tc.arm(p)
			received := make(chan error, 1)
			go func() {
				_, err := p.l.Receive(t.Context(), target)
				received <- err
			}()
			p.opts.hooks = p.src.hooks
			p.opts.hooks.dial = p.dial
			_, err := Send(p.ctx, p.src, p.l.Address(), p.opts)
			var refused *RefusedError
			if !errors.As(err, &refused) || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("%v, want a refusal with %q", err, tc.want)
			}
			if err := <-received; !isDiscarded(err) || p.src.pauses != 0 {
				t.Errorf("receive: %v; paused %d times", err, p.src.pauses)
			}
			p.verifyLaw(source)
		})
	}
	p := newLocalPair(t)
	for _, address := range []string{"tcp:127.0.0.1:1", "tcp:host:1"} {
		at, err := ParseAddress(address)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := Send(context.Background(), p.src, at, p.opts); !errors.Is(err, errNotUnix) {
			t.Errorf("%s: %v", address, err)
		}
	}
	p.verifyLaw(source)
}

// TestMemoryIsNotAskedFor: a frame MEMORY where no local hand-over was said is an error.
func TestMemoryIsNotAskedFor(t *testing.T) {
	p := newPair(t)
	p.listenUnix()
	received := p.receiveInBackground(t.Context())
	conn := p.stranger()
	_ = newRawWriter(conn).play(append(opening(), sendBytes(wire.TypeMemory, nil))...)
	_, _ = io.Copy(io.Discard, conn)
	if err := <-received; !errors.Is(err, wire.ErrProtocol) {
		t.Error(err)
	}
	p.verifyLaw(source)
}
