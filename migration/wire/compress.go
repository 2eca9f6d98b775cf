package wire

import (
	"fmt"
	"hash/crc32"

	"github.com/klauspost/compress/zstd"
)

// Compressor makes batches smaller. It is for one goroutine at a time, and is reused: its tables are
// larger than a batch.
type Compressor struct {
	enc *zstd.Encoder
}

// NewCompressor returns a compressor of the fastest level: it competes with the link.
func NewCompressor() *Compressor {
	enc, err := zstd.NewWriter(nil,
		zstd.WithEncoderLevel(zstd.SpeedFastest),
		zstd.WithEncoderConcurrency(1),
		zstd.WithWindowSize(MaxBatchBytes),
		zstd.WithEncoderCRC(false)) // the frame has one
	if err != nil {
		panic(fmt.Sprintf("wire: zstd refuses its options: %v", err))
	}
	return &Compressor{enc: enc}
}

// Compress makes a sealed batch leave as PAGES_ZSTD, and reports true, if that is smaller. The records
// stay; Reset forgets both. The first call allocates a buffer of the batch's size.
func (b *Batch) Compress(c *Compressor) bool {
	records := b.view.AsSlice()[HeaderBytes:]
	if b.packed == nil {
		b.packed = make([]byte, 0, HeaderBytes+c.enc.MaxEncodedSize(b.limit-HeaderBytes))
	}
	b.packed = c.enc.EncodeAll(records, b.packed[:HeaderBytes])
	if len(b.packed)-HeaderBytes >= len(records) {
		b.packed = b.packed[:0]
		return false
	}
	b.crc = crc32.Checksum(b.packed[HeaderBytes:], castagnoli())
	return true
}

// WireBytes is the size of a sealed batch's payload as it leaves.
func (b *Batch) WireBytes() int {
	if len(b.packed) > 0 {
		return len(b.packed) - HeaderBytes
	}
	return b.SizeBytes()
}

// decompressor expands the payloads of PAGES_ZSTD, to at most MaxBatchBytes.
type decompressor struct {
	dec *zstd.Decoder
	out []byte
}

func newDecompressor() *decompressor {
	dec, err := zstd.NewReader(nil,
		zstd.WithDecoderConcurrency(1),
		zstd.WithDecoderMaxMemory(MaxBatchBytes), // of the window, too
		zstd.WithDecodeAllCapLimit(true))
	if err != nil {
		panic(fmt.Sprintf("wire: zstd refuses its options: %v", err))
	}
	// The quick loops of the decoder want some bytes more than there are.
	const slackBytes = 64
	return &decompressor{dec: dec, out: make([]byte, 0, MaxBatchBytes+slackBytes)}
}

// expand returns the records in payload, good until the next call.
func (d *decompressor) expand(payload []byte) ([]byte, error) {
	records, err := d.dec.DecodeAll(payload, d.out)
	if err != nil {
		return nil, protocolErrorf("PAGES_ZSTD of %d bytes: %w", len(payload), err)
	}
	return records, nil
}
