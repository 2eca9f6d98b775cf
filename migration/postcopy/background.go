package postcopy

import (
	"context"

	"github.com/fineline-vmm/fineline/migration/wire"
)

// stream is one background connection: it pushes what nobody has claimed, from the common cursor on.
type stream struct {
	server *Server
	ctx    context.Context
	conn   Conn
	batch  *wire.Batch
	zstd   *wire.Compressor // nil: none
	pages  uint64
}

func newStream(s *Server, ctx context.Context, conn Conn) *stream {
	st := &stream{server: s, ctx: ctx, conn: conn, batch: wire.NewBatch(s.opts.BatchBytes)}
	if s.opts.Compress {
		st.zstd = wire.NewCompressor()
	}
	return st
}

func (st *stream) run() error {
	for {
		st.batch.Reset()
		count, err := st.gather()
		if err != nil {
			return err
		}
		if count == 0 {
			return st.end()
		}
		if err := st.send(); err != nil {
			return err
		}
		st.pages += uint64(count)
		st.server.sent.background.Add(uint64(count))
	}
}

// framePages bounds a frame where a page is a line: what is claimed and not yet in place is sent twice if it is asked for.
const framePages = 128

// gather claims and encodes the pages of one frame, which ascend; none when all are claimed. Page by page, so
// that what is claimed and not yet on the wire, and would be sent twice if it were asked for, is little.
func (st *stream) gather() (count int, err error) {
	s := st.server
	for last := uint64(0); !st.batch.Full() && count < framePages; count++ {
		s.gate.pass()
		page, ok := s.claimNext(last)
		if !ok {
			break
		}
		if err := s.encode(page, false, st.batch); err != nil {
			return 0, err
		}
		last = page
	}
	return count, nil
}

func (st *stream) send() error {
	s := st.server
	st.batch.Seal()
	if st.zstd != nil {
		st.batch.Compress(st.zstd)
	}
	size := wire.HeaderBytes + st.batch.WireBytes()
	if s.opts.Limit != nil {
		if err := s.opts.Limit(st.ctx, size); err != nil {
			return err
		}
	}
	s.gate.pass()
	return st.conn.send(st.ctx, s.opts.PeerTimeout, func() error { return st.conn.Writer.Batch(st.batch) })
}

// end says that this stream brings no more, and how much it has brought.
func (st *stream) end() error {
	end := wire.RoundEnd{Round: 1, Pages: st.pages}
	return st.conn.send(st.ctx, st.server.opts.PeerTimeout, func() error {
		return st.conn.Writer.Message(wire.TypeRoundEnd, end)
	})
}

// claimNext claims the first unclaimed page from the cursor on, around the end. A page beyond the end of a
// frame that has begun (last is its highest page, 0 for none) begins another: false, as when there is none.
func (s *Server) claimNext(last uint64) (uint64, bool) {
	for {
		from := s.cursor.Load()
		page, ok := s.unsent.next(from)
		if !ok {
			page, ok = s.unsent.next(0)
		}
		if !ok || last != 0 && page <= last {
			return 0, false
		}
		if s.unsent.take(page) {
			// Unless a miss has moved it meanwhile.
			s.cursor.CompareAndSwap(from, page+1)
			return page, true
		}
	}
}
