package migration

import (
	"context"
	"net"
	"testing"

	"github.com/fineline-vmm/fineline/migration/wire"
)

// TestStreamComesAsReadersEnd is for the race detector: a stream joins while the readers of a round end.
func TestStreamComesAsReadersEnd(t *testing.T) {
	p := newPair(t)
	hello := hostileHello()
	hello.Streams = 1
	s := &session{source: &hello, mem: &arrived{mem: p.dst.mem}}
	s.expectStreams()
	ctx, cancel := context.WithCancelCause(t.Context())
	readers := s.readStreams(ctx, cancel)
	ours, theirs := net.Pipe()
	defer theirs.Close()
	v := newVisitor(ours, 0)
	defer v.close()
	v.hello = &wire.Hello{Stream: 1}
	joined := make(chan error, 1)
	go func() { joined <- s.join(v) }()
	if err := readers.finish(true); err != nil {
		t.Error(err)
	}
	if err := <-joined; err != nil {
		t.Error(err)
	}
}
