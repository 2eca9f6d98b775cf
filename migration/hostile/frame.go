package hostile

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"io"

	"github.com/fineline-vmm/fineline/migration/wire"
)

// Offsets in a frame's header; see package wire.
const (
	typeOffset     = 6
	sizeOffset     = 8
	sequenceOffset = 12
	checksumOffset = 16
)

// maxFrameBytes is more than any frame has.
const maxFrameBytes = 80 << 20

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// frame is one frame as it is on the wire, header and payload.
type frame []byte

func readFrame(r io.Reader) (frame, error) {
	head := make(frame, wire.HeaderBytes)
	if _, err := io.ReadFull(r, head); err != nil {
		return nil, err
	}
	size := binary.LittleEndian.Uint32(head[sizeOffset:])
	if size > maxFrameBytes {
		return nil, fmt.Errorf("a frame of %d bytes", size)
	}
	f := append(head, make([]byte, size)...)
	_, err := io.ReadFull(r, f[wire.HeaderBytes:])
	return f, err
}

// readPiece reads what there is, as if it were a frame.
func readPiece(r io.Reader) (frame, error) {
	piece := make(frame, 16<<10)
	n, err := r.Read(piece)
	if n > 0 {
		err = nil // it comes again
	}
	return piece[:n], err
}

func (f frame) setKind(t wire.Type) { binary.LittleEndian.PutUint16(f[typeOffset:], uint16(t)) }

// seal makes the frame the n-th of its connection, with a right size and checksum.
func (f frame) seal(n uint32) {
	binary.LittleEndian.PutUint32(f[sizeOffset:], uint32(len(f)-wire.HeaderBytes))
	binary.LittleEndian.PutUint32(f[sequenceOffset:], n)
	sum := crc32.Update(crc32.Checksum(f[wire.HeaderBytes:], castagnoli), castagnoli, f[:checksumOffset])
	binary.LittleEndian.PutUint32(f[checksumOffset:], sum)
}
