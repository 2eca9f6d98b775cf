package relay

import (
	"bytes"
	"context"
	"net"
	"sync"
	"time"
)

const (
	chunkBytes = 16 << 10
	minChunks  = 64 // in flight to one receiver: small messages are chunks too
)

// direction is one of the two of a connection.
type direction struct {
	wire     *wire
	dst, src net.Conn
	cut      func() // ends the whole connection
}

// chunk is on its way.
type chunk struct {
	data    []byte
	arrives time.Time
}

// pass moves bytes until src ends, then ends dst's input.
func (d *direction) pass(ctx context.Context) {
	way := make(chan chunk, max(minChunks, d.wire.inFlight()/chunkBytes))
	var delivery sync.WaitGroup
	delivery.Go(func() { d.deliver(ctx, way) })
	for buf := make([]byte, chunkBytes); ; {
		n, err := d.src.Read(buf)
		if n > 0 {
			accepted, arrives := d.wire.send(time.Now(), n)
			way <- chunk{bytes.Clone(buf[:n]), arrives}
			err = sleepUntil(ctx, accepted) // what the read had to say it says again
		}
		if err != nil {
			break
		}
	}
	close(way)
	delivery.Wait()
	if half, ok := d.dst.(interface{ CloseWrite() error }); ok {
		_ = half.CloseWrite() // the other side may be gone
	}
}

// deliver writes chunks when they arrive. It always empties the channel, so that pass is never stuck.
func (d *direction) deliver(ctx context.Context, way <-chan chunk) {
	dead := false
	for c := range way {
		if dead || sleepUntil(ctx, c.arrives) != nil {
			continue
		}
		_, err := d.dst.Write(c.data)
		if dead = err != nil; dead {
			d.cut()
		}
	}
}
