package hostile

import (
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"sync"
	"time"
)

// LongDelay is how long Delay holds a frame: less than any timeout, and more than all the rest takes.
const LongDelay = 500 * time.Millisecond

// maxKept bounds the frames that are kept for a replay.
const maxKept = 64

// Dial connects to the honest destination.
type Dial func(context.Context) (net.Conn, error)

// Middle is a man in the middle between two honest VMMs.
type Middle struct {
	ln     net.Listener
	dial   Dial
	read   func(io.Reader) (frame, error)
	ctx    context.Context
	cancel context.CancelFunc
	tasks  sync.WaitGroup

	mu     sync.Mutex
	plan   Plan
	armed  bool // the deed is to be done yet
	passed int  // frames, since Arm
	conns  []*passage
	kept   []frame // for a replay
	did    bool
}

// NewMiddle passes on what comes to ln, which it closes, to where dial leads. It does nothing else before Arm.
func NewMiddle(ln net.Listener, dial Dial) *Middle {
	return newMiddle(ln, dial, readFrame)
}

// NewOpaque is NewMiddle where frames can't be seen, below TLS: the deeds are done to pieces of the stream.
func NewOpaque(ln net.Listener, dial Dial) *Middle { return newMiddle(ln, dial, readPiece) }

func newMiddle(ln net.Listener, dial Dial, read func(io.Reader) (frame, error)) *Middle {
	m := &Middle{ln: ln, dial: dial, read: read}
	m.ctx, m.cancel = context.WithCancel(context.Background())
	m.tasks.Go(m.accept)
	return m
}

// Arm makes the frames count from now on, and the plan's deed be done.
func (m *Middle) Arm(p Plan) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.plan, m.armed, m.passed, m.did = p, true, 0, false
}

// Done reports whether the deed was done, and how many frames passed since Arm.
func (m *Middle) Done() (did bool, frames int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.did, m.passed
}

// Close ends all connections and returns when nothing is left of them.
func (m *Middle) Close() error {
	m.cancel()
	err := m.ln.Close()
	m.mu.Lock()
	for _, p := range m.conns {
		p.close()
	}
	m.mu.Unlock()
	m.tasks.Wait()
	return err
}

func (m *Middle) accept() {
	for {
		in, err := m.ln.Accept()
		if err != nil {
			return // closed
		}
		out, err := m.dial(m.ctx)
		if err != nil {
			_ = in.Close() // there is nobody
			continue
		}
		m.pass(in, out)
	}
}

// passage is one connection through the middle.
type passage struct {
	ends  [2]*end // the source's, and the destination's
	close func()
}

// end is what leads to one of the VMMs.
type end struct {
	net.Conn
	mu     sync.Mutex // held for one frame
	sent   uint32     // frames
	forged bool       // each further frame must be numbered anew
}

func (m *Middle) pass(in, out net.Conn) {
	p := &passage{ends: [2]*end{{Conn: in}, {Conn: out}}}
	p.close = sync.OnceFunc(func() {
		_ = in.Close()
		_ = out.Close()
	})
	m.mu.Lock()
	defer m.mu.Unlock()
	m.conns = append(m.conns, p)
	if m.ctx.Err() != nil {
		p.close()
	}
	for from := range p.ends {
		m.tasks.Go(func() {
			defer p.close() // a VMM that hangs up means both ways
			m.oneWay(p, from)
		})
	}
}

// oneWay passes the frames that come from one end to the other.
func (m *Middle) oneWay(p *passage, from int) {
	to := p.ends[1-from]
	for {
		f, err := m.read(p.ends[from])
		if err != nil {
			return
		}
		do, plan := m.count(f)
		if !do {
			err = to.send(f, false)
		} else {
			err = m.act(plan, p, from, f)
		}
		if err != nil {
			return
		}
	}
}

// count says whether this is the frame of the plan.
func (m *Middle) count(f frame) (do bool, plan Plan) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if len(m.kept) < maxKept && len(f) < 1<<16 {
		m.kept = append(m.kept, f)
	}
	n := m.passed
	m.passed++
	if !m.armed || n < m.plan.Frame {
		return false, m.plan
	}
	m.armed, m.did = false, true
	return true, m.plan
}

var errClosed = errors.New("closed on purpose")

// act does the deed to a frame.
func (m *Middle) act(plan Plan, p *passage, from int, f frame) error {
	to := p.ends[1-from]
	send := func(frames ...frame) error {
		for _, one := range frames {
			if err := to.send(one, plan.Forge); err != nil {
				return err
			}
		}
		return nil
	}
	switch plan.Deed {
	case Flip:
		return send(plan.flip(f))
	case Drop:
		to.forge(plan.Forge)
		return nil
	case Repeat:
		return send(f, f)
	case Swap:
		next, err := m.read(p.ends[from])
		if err != nil {
			return send(f)
		}
		return send(next, f)
	case Delay:
		select {
		case <-time.After(LongDelay):
		case <-m.ctx.Done():
		}
		return send(f)
	case Truncate:
		_, err := to.Write(f[:(len(f)+1)/2])
		return errors.Join(err, errClosed)
	case Stray:
		if other := m.other(plan, p); other != nil {
			to.forge(plan.Forge)
			return other.ends[1-from].send(f, plan.Forge)
		}
		return send(f)
	case Inject:
		return send(plan.another(f), f)
	case Replay:
		return send(m.old(plan), f)
	}
	return errClosed // Close
}

// other is another connection that is open, or nil.
func (m *Middle) other(plan Plan, than *passage) *passage {
	m.mu.Lock()
	defer m.mu.Unlock()
	var others []*passage
	for _, p := range m.conns {
		if p != than {
			others = append(others, p)
		}
	}
	if len(others) == 0 {
		return nil
	}
	return others[rand.New(rand.NewPCG(plan.Seed, 3)).IntN(len(others))]
}

// old is a frame that passed before.
func (m *Middle) old(plan Plan) frame {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.kept[rand.New(rand.NewPCG(plan.Seed, 4)).IntN(len(m.kept))]
}

// forge makes all further frames be numbered anew.
func (e *end) forge(yes bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.forged = e.forged || yes
}

// send writes a frame, as it is or sealed anew.
func (e *end) send(f frame, forged bool) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.forged = e.forged || forged; e.forged {
		f = append(frame(nil), f...)
		f.seal(e.sent)
	}
	e.sent++
	_, err := e.Write(f)
	return err
}
