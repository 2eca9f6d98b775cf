package migration

import (
	"fmt"
	"sync/atomic"
	"time"

	"github.com/fineline-vmm/fineline/migration/wire"
)

// Compression says whether batches leave as zstd.
type Compression string

// The choices.
const (
	CompressionAuto Compression = "auto" // while the link is slower than compressing
	CompressionZstd Compression = "zstd" // always
	CompressionNone Compression = "none"
)

func (c Compression) validate() error {
	switch c {
	case CompressionAuto, CompressionZstd, CompressionNone:
		return nil
	}
	return fmt.Errorf("unknown compression %q; use auto, zstd or none", c)
}

// compressBelowBytesPerS: zstd at its fastest makes 350 to 480 MB/s of a processor here, and may halve the
// bytes; a link that takes more is better left alone.
const compressBelowBytesPerS = 250e6

// compressor compresses the batches of one pump. The goroutine that gathers calls compress, the one that writes
// calls took.
type compressor struct {
	choice Compression
	zstd   *wire.Compressor // made at its first use, since it takes memory
	rate   atomic.Uint64    // bytes a second of the last batch that was written; 0: none was
}

// compress makes a sealed batch smaller if that gains time. waited: the link was what the last batch
// waited for.
func (c *compressor) compress(b *wire.Batch, waited bool) {
	rate := c.rate.Load()
	slow := waited && rate > 0 && rate < compressBelowBytesPerS
	if c.choice == CompressionNone || c.choice == CompressionAuto && !slow {
		return
	}
	if c.zstd == nil {
		c.zstd = wire.NewCompressor()
	}
	b.Compress(c.zstd)
}

// took notes how long a batch took to leave.
func (c *compressor) took(sizeBytes int, d time.Duration) {
	c.rate.Store(uint64(float64(sizeBytes) / max(d, time.Microsecond).Seconds()))
}
