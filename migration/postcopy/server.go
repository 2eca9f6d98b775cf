package postcopy

import (
	"bytes"
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/fineline-vmm/fineline/memory"
	"github.com/fineline-vmm/fineline/migration/wire"
)

// Source is the memory that a Server reads: *memory.Guest of a guest that stands still for ever.
type Source interface {
	ViewPage(gpa memory.GPA, fn func(page []byte)) error
}

// Encoder appends to b what the destination lacks of a page: exactly that page, also when nothing of it
// has changed, since the destination waits for it. It is called by several goroutines at a time, never twice for
// one page. Precondition: b is not full.
type Encoder func(gpa memory.GPA, page []byte, b *wire.Batch)

// ServerOptions configures NewServer. The zero value is good.
type ServerOptions struct {
	// Encoder; nil: WholePages. Only WholePages is right for a page that is sent a second time, and is used then.
	Encoder Encoder
	// Limit, if set, is asked before each frame of the background, and waits as long as the bandwidth allowed
	// demands, which is less than the peer's PeerTimeout. Answers to requests do not wait. It is called by
	// several goroutines at a time.
	Limit func(ctx context.Context, sizeBytes int) error
	// Compress sends background frames as zstd. The answers to requests are not compressed.
	Compress bool
	// BatchBytes is the size of a frame of the background; 0: DefaultBatchBytes.
	BatchBytes int
	// PeerTimeout is how long the peer may take nothing; 0: DefaultPeerTimeout.
	PeerTimeout time.Duration
}

// Defaults of ServerOptions and PagerOptions.
const (
	// DefaultBatchBytes: small, because who waits for a page of a frame waits for all of it.
	DefaultBatchBytes  = 64 << 10
	DefaultPeerTimeout = 10 * time.Second
)

// Server is the source's half: it delivers a set of pages of a guest that runs elsewhere, those that are asked for
// first. Its methods are safe for concurrent use, except that one Serve or Reset runs at a time.
type Server struct {
	mem  Source
	opts ServerOptions
	gate gate
	sent sentPages

	pages  *pageBits     // to be delivered: nothing else is
	unsent *pageBits     // of these, the ones that nobody has claimed
	whole  *pageBits     // of these, the ones that were claimed before a Reset
	urged  *pageBits     // sent on the present fault connection
	cursor atomic.Uint64 // page number from which the background goes on

	total, before uint64 // for Left: pages to deliver, and sent before that was last set
}

// NewServer returns a server of the given pages, which it copies. The guest never runs at the source again, so
// its pages never change; pages that the destination has are not in the set.
func NewServer(mem Source, pages *memory.PageSet, opts ServerOptions) *Server {
	if opts.Encoder == nil {
		opts.Encoder = WholePages
	}
	if opts.BatchBytes == 0 {
		opts.BatchBytes = DefaultBatchBytes
	}
	if opts.PeerTimeout == 0 {
		opts.PeerTimeout = DefaultPeerTimeout
	}
	s := &Server{mem: mem, opts: opts}
	s.gate.init()
	s.pages, s.unsent = pageBitsOf(pages), pageBitsOf(pages)
	s.whole, s.urged = &pageBits{}, newPageBits(pages)
	s.total = pages.Len()
	return s
}

// Reset prepares for new connections after Serve has failed: absent is what the destination still lacks, and all
// that is delivered from now on. What was claimed of it before goes whole, since nobody knows what became of
// it. A page that was not to be delivered is an error of class wire.ErrProtocol, and changes nothing.
func (s *Server) Reset(absent *memory.PageSet) error {
	var err error
	absent.Range(func(gpa memory.GPA) bool {
		if !s.pages.has(pageNumber(gpa)) {
			err = protocolErrorf("the destination lacks page %#x, which it was never to lack", pageNumber(gpa))
		}
		return err == nil
	})
	if err != nil {
		return err
	}
	whole := newPageBits(absent)
	absent.Range(func(gpa memory.GPA) bool {
		if page := pageNumber(gpa); s.whole.has(page) || !s.unsent.has(page) {
			whole.add(page)
		}
		return true
	})
	s.pages, s.unsent = pageBitsOf(absent), pageBitsOf(absent)
	s.whole, s.urged = whole, newPageBits(absent)
	s.total, s.before = absent.Len(), s.sent.once()
	return nil
}

// Serve delivers over the connections: requests on fault, everything else on background, which may be empty. A
// background stream ends with ROUND_END when all pages have been sent on some connection, and requests are
// answered on, so Serve never returns nil: it returns the cause of ctx when that ends, which is how the caller
// says that the destination has everything, or a connection's error. When all was sent that is due within the
// PeerTimeout, or requests are: else Serve ends with ErrPeerSilent, since a link that stands still shows nothing
// to who only waits. After an error the same Server goes on by Reset and Serve; see there.
func (s *Server) Serve(ctx context.Context, fault Conn, background []Conn) error {
	conns := append([]Conn{fault}, background...)
	g := newGroup(ctx, conns, s.opts.PeerTimeout)
	a := newAnswerer(s, g.ctx, fault)
	g.start(a.readRequests)
	g.start(a.sendPredicted)
	var sending sync.WaitGroup
	for i := range background {
		st := newStream(s, g.ctx, background[i])
		sending.Add(1)
		g.startBackground(func() error {
			defer sending.Done()
			return st.run()
		})
	}
	if len(background) > 0 {
		g.start(func() error {
			sending.Wait()
			return a.awaitEnd(conns)
		})
	}
	return g.wait()
}

// Left returns how many pages are not on the wire yet. Not while Reset runs. The destination may have to store some still.
func (s *Server) Left() uint64 {
	sent := s.sent.once() - s.before
	return s.total - min(sent, s.total)
}

// sentPages counts what a Server has sent since it was made.
type sentPages struct {
	missed     atomic.Uint64 // somebody waits for them
	again      atomic.Uint64 // of these, the ones that were claimed before
	predicted  atomic.Uint64
	background atomic.Uint64 // unasked
}

// once counts pages once, whatever was asked for again.
func (s *sentPages) once() uint64 {
	again := s.again.Load() // first: each of them counts as missed before
	return s.background.Load() + s.predicted.Load() + s.missed.Load() - again
}

// encode appends a page that the caller has claimed; whole if nobody knows what the destination has of it.
func (s *Server) encode(page uint64, whole bool, b *wire.Batch) error {
	gpa := pageGPA(page)
	enc := s.opts.Encoder
	if whole || s.whole.has(page) {
		enc = WholePages
	}
	if err := s.mem.ViewPage(gpa, func(content []byte) { enc(gpa, content, b) }); err != nil {
		return fmt.Errorf("cannot read guest page %#x: %w", uint64(gpa), err)
	}
	return nil
}

var zeroPage [memory.PageSize]byte

// WholePages is the encoder that knows nothing of what the destination has.
func WholePages(gpa memory.GPA, page []byte, b *wire.Batch) {
	if bytes.Equal(page, zeroPage[:]) {
		b.AppendZero(pageNumber(gpa))
		return
	}
	b.AppendPage(pageNumber(gpa), page)
}

// gate keeps the background waiting while a request is being answered: on few processors they would share one.
type gate struct {
	urgent atomic.Int32
	mu     sync.Mutex
	open   sync.Cond
}

func (g *gate) init() { g.open.L = &g.mu }

func (g *gate) close() { g.urgent.Add(1) }

func (g *gate) reopen() {
	if g.urgent.Add(-1) == 0 {
		g.mu.Lock() // who has looked and not yet waited holds it
		g.open.Broadcast()
		g.mu.Unlock()
	}
}

// pass waits until nothing is urgent. Urgent work ends by itself or with its connection, so this ends.
func (g *gate) pass() {
	if g.urgent.Load() == 0 {
		return
	}
	g.mu.Lock()
	for g.urgent.Load() != 0 {
		g.open.Wait()
	}
	g.mu.Unlock()
}
