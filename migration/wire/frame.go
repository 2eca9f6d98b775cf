package wire

import (
	"bufio"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"io"

	"gvisor.dev/gvisor/pkg/buffer"
)

// HeaderBytes is the size of a frame's header.
const HeaderBytes = 20

const checksumOffset = 16

// castagnoli is a call, since the first one anywhere takes 2 ms: not in the way of a guest's start.
func castagnoli() *crc32.Table { return crc32.MakeTable(crc32.Castagnoli) }

type header [HeaderBytes]byte

// fill writes the header of a payload whose own CRC-32C is known.
func (h *header) fill(t Type, size int, seq uint32, payloadCRC uint32) {
	binary.LittleEndian.PutUint32(h[0:], Magic)
	binary.LittleEndian.PutUint16(h[4:], Version)
	binary.LittleEndian.PutUint16(h[6:], uint16(t))
	binary.LittleEndian.PutUint32(h[8:], uint32(size))
	binary.LittleEndian.PutUint32(h[12:], seq)
	binary.LittleEndian.PutUint32(h[checksumOffset:], crc32.Update(payloadCRC, castagnoli(), h[:checksumOffset]))
}

// Writer writes frames. It is for one goroutine at a time.
type Writer struct {
	w   io.Writer
	seq uint32
}

// NewWriter returns a writer of the first frame of a connection.
func NewWriter(w io.Writer) *Writer { return &Writer{w: w} }

// Signal writes a frame without payload.
func (w *Writer) Signal(t Type) error { return w.Bytes(t, nil) }

// Message writes msg as JSON.
func (w *Writer) Message(t Type, msg any) error {
	payload, err := json.Marshal(msg)
	if err != nil {
		return fmt.Errorf("%s: %w", t, err)
	}
	return w.Bytes(t, payload)
}

// Bytes writes an opaque payload. One larger than the type's cap is refused here, where its maker can
// still be told, and not by the peer.
func (w *Writer) Bytes(t Type, payload []byte) error {
	if len(payload) > int(kinds[t].cap) {
		return fmt.Errorf("%s of %d bytes: the limit is %d", t, len(payload), kinds[t].cap)
	}
	var h header
	h.fill(t, len(payload), w.seq, crc32.Checksum(payload, castagnoli()))
	// One view, so that header and payload leave in one write.
	view := buffer.NewView(HeaderBytes + len(payload))
	defer view.Release()
	_, _ = view.Write(h[:]) // a view with room takes all
	_, _ = view.Write(payload)
	return w.send(t, view)
}

// Batch writes a sealed batch as one PAGES or, if it was compressed, PAGES_ZSTD frame. The batch keeps
// its content.
func (w *Writer) Batch(b *Batch) error {
	var h header
	if len(b.packed) > 0 {
		h.fill(TypePagesZstd, b.WireBytes(), w.seq, b.crc)
		copy(b.packed, h[:])
		_, err := w.w.Write(b.packed)
		return w.sent(TypePagesZstd, err)
	}
	h.fill(TypePages, b.SizeBytes(), w.seq, b.crc)
	_, _ = b.view.WriteAt(h[:], 0)
	out := b.view.Clone() // shares the bytes; a write consumes the view
	defer out.Release()
	return w.send(TypePages, out)
}

func (w *Writer) send(t Type, view *buffer.View) error {
	_, err := view.WriteTo(w.w)
	return w.sent(t, err)
}

func (w *Writer) sent(t Type, err error) error {
	w.seq++
	if err != nil {
		return fmt.Errorf("cannot send %s: %w", t, err)
	}
	return nil
}

// Frame is one frame that was read. Payload belongs to the reader and is good until its next Next.
// A PAGES_ZSTD frame comes expanded, and as TypePages.
type Frame struct {
	Type      Type
	Payload   []byte
	WireBytes int // size of the payload as it came
}

// Reader reads frames. It is for one goroutine at a time.
type Reader struct {
	r     io.Reader
	seq   uint32
	head  header
	batch *buffer.View  // one buffer for all PAGES and PAGES_ZSTD frames
	zstd  *decompressor // from the first PAGES_ZSTD on
	limit io.LimitedReader
}

// NewReader returns a reader of the first frame of a connection.
func NewReader(r io.Reader) *Reader { return &Reader{r: r} }

// ReadAhead has the reader go on with from, which is the same stream, and take what has arrived in pieces of up to sizeBytes, so
// that a small frame costs one system call in place of two. Nobody else may read the stream from then on.
func (r *Reader) ReadAhead(from io.Reader, sizeBytes int) { r.r = bufio.NewReaderSize(from, sizeBytes) }

// Next reads a frame of one of the given types. It returns io.EOF bare when the stream ends between
// frames. Nothing is allocated for a frame that is of another type, too large or of another version,
// and for others no more than twice what has arrived, but for the buffers of PAGES and PAGES_ZSTD.
func (r *Reader) Next(takes Set) (Frame, error) {
	if _, err := io.ReadFull(r.r, r.head[:]); err != nil {
		if errors.Is(err, io.EOF) { // not ErrUnexpectedEOF: that is inside a header
			return Frame{}, io.EOF
		}
		return Frame{}, fmt.Errorf("cannot read a frame: %w", err)
	}
	t, size, err := r.checkHeader(takes)
	if err != nil {
		return Frame{}, err
	}
	payload, err := r.readPayload(t, size)
	if err != nil {
		return Frame{}, fmt.Errorf("cannot read %s of %d bytes: %w", t, size, err)
	}
	crc := crc32.Update(crc32.Checksum(payload, castagnoli()), castagnoli(), r.head[:checksumOffset])
	if want := binary.LittleEndian.Uint32(r.head[checksumOffset:]); crc != want {
		return Frame{}, protocolErrorf("%s has checksum %08x, and its bytes have %08x", t, want, crc)
	}
	r.seq++
	return r.expand(Frame{Type: t, Payload: payload, WireBytes: len(payload)})
}

// expand turns PAGES_ZSTD into PAGES.
func (r *Reader) expand(f Frame) (Frame, error) {
	if f.Type != TypePagesZstd {
		return f, nil
	}
	if r.zstd == nil {
		r.zstd = newDecompressor()
	}
	records, err := r.zstd.expand(f.Payload)
	f.Type, f.Payload = TypePages, records
	return f, err
}

func (r *Reader) checkHeader(takes Set) (Type, uint32, error) {
	if binary.LittleEndian.Uint32(r.head[0:]) != Magic {
		return 0, 0, &MagicError{Got: [4]byte(r.head[:4])}
	}
	if version := binary.LittleEndian.Uint16(r.head[4:]); version != Version {
		return 0, 0, &VersionError{Peer: version}
	}
	t := Type(binary.LittleEndian.Uint16(r.head[6:]))
	size := binary.LittleEndian.Uint32(r.head[8:])
	seq := binary.LittleEndian.Uint32(r.head[12:])
	switch {
	case !takes.has(t):
		return 0, 0, protocolErrorf("%s came where %s belongs", t, takes)
	case size > kinds[t].cap:
		return 0, 0, protocolErrorf("%s of %d bytes: the limit is %d", t, size, kinds[t].cap)
	case seq != r.seq:
		return 0, 0, protocolErrorf("%s has number %d where %d belongs", t, seq, r.seq)
	}
	return t, size, nil
}

func (r *Reader) readPayload(t Type, size uint32) ([]byte, error) {
	if size == 0 {
		return nil, nil
	}
	if t == TypePages || t == TypePagesZstd {
		if r.batch == nil {
			r.batch = buffer.NewView(MaxBatchBytes)
		}
		r.batch.Reset()
		if err := r.fill(r.batch, int(size)); err != nil {
			return nil, err
		}
		return r.batch.AsSlice(), nil
	}
	// A rope grows with what arrives, not with what the header promises. (Buffer.WriteFromReader
	// does not end at the end of a stream, so the pieces are read here.)
	var rope buffer.Buffer
	defer rope.Release()
	for left := int(size); left > 0; {
		piece := min(left, buffer.MaxChunkSize)
		view := buffer.NewView(piece)
		if err := r.fill(view, piece); err != nil {
			view.Release()
			return nil, err
		}
		if err := rope.Append(view); err != nil {
			return nil, err
		}
		left -= piece
	}
	return rope.Flatten(), nil
}

// fill reads exactly size bytes into a view that has room for them.
func (r *Reader) fill(view *buffer.View, size int) error {
	r.limit = io.LimitedReader{R: r.r, N: int64(size)}
	n, err := view.ReadFrom(&r.limit)
	if err == nil && n < int64(size) {
		return io.ErrUnexpectedEOF
	}
	return err
}
