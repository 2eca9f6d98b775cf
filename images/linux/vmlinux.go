package linux

import (
	"bytes"
	"context"
	"debug/elf"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
)

// Offsets in the setup header of a bzImage (Linux Documentation/arch/x86/boot.rst).
const (
	offSetupSects    = 0x1f1
	offHeaderMagic   = 0x202
	offVersion       = 0x206
	offPayloadOffset = 0x248 // since protocol 2.08
	offPayloadLength = 0x24c
	setupHeaderEnd   = 0x250
	sectorBytes      = 512
	minVersion       = 0x0208

	// maxVmlinuxBytes bounds the allocation that the payload's own size field
	// asks for. Debian's cloud kernel is about 50 MiB.
	maxVmlinuxBytes = 1 << 30
)

var (
	// ErrNotBzImage: the file is not a Linux bzImage of protocol 2.08 or later.
	ErrNotBzImage = errors.New("not a Linux bzImage")
	// ErrNoPVHNote: the ELF cannot be entered by the PVH boot protocol.
	ErrNoPVHNote = errors.New("no PVH entry note")
)

// ExtractVmlinux returns the ELF kernel inside a bzImage. The result has a PVH
// entry note. It may run xz or zstd, by the payload's format.
func ExtractVmlinux(ctx context.Context, image []byte) ([]byte, error) {
	payload, err := bzImagePayload(image)
	if err != nil {
		return nil, err
	}
	// The build appends the uncompressed size; gzip's own trailer is that size.
	sizeBytes := int64(binary.LittleEndian.Uint32(payload[len(payload)-4:]))
	if sizeBytes > maxVmlinuxBytes {
		return nil, fmt.Errorf("%w: payload claims %d bytes uncompressed", ErrNotBzImage, sizeBytes)
	}
	if !isGzip(payload) {
		payload = payload[:len(payload)-4]
	}
	vmlinux, err := decompress(ctx, payload, sizeBytes)
	if err != nil {
		return nil, fmt.Errorf("decompress the kernel: %w", err)
	}
	if int64(len(vmlinux)) != sizeBytes {
		return nil, fmt.Errorf("decompress the kernel: %d bytes, header says %d", len(vmlinux), sizeBytes)
	}
	return vmlinux, CheckPVH(bytes.NewReader(vmlinux))
}

// bzImagePayload returns the compressed kernel, at least 4 bytes of it.
func bzImagePayload(image []byte) ([]byte, error) {
	if len(image) < setupHeaderEnd || string(image[offHeaderMagic:offHeaderMagic+4]) != "HdrS" {
		return nil, ErrNotBzImage
	}
	if v := binary.LittleEndian.Uint16(image[offVersion:]); v < minVersion {
		return nil, fmt.Errorf("%w: boot protocol %d.%02d is too old", ErrNotBzImage, v>>8, v&0xff)
	}
	setupSects := uint64(image[offSetupSects])
	if setupSects == 0 {
		setupSects = 4 // boot.rst: 0 means 4, for old loaders
	}
	start := (setupSects+1)*sectorBytes + uint64(binary.LittleEndian.Uint32(image[offPayloadOffset:]))
	length := uint64(binary.LittleEndian.Uint32(image[offPayloadLength:]))
	if length < 8 || start+length > uint64(len(image)) {
		return nil, fmt.Errorf("%w: payload of %d bytes at %d is outside the file", ErrNotBzImage, length, start)
	}
	return image[start : start+length], nil
}

// xenNotePhys32Entry is XEN_ELFNOTE_PHYS32_ENTRY (xen/include/public/elfnote.h).
const xenNotePhys32Entry = 18

// CheckPVH returns nil if the ELF file has the note with its PVH entry point.
func CheckPVH(r io.ReaderAt) error {
	f, err := elf.NewFile(r)
	if err != nil {
		return fmt.Errorf("kernel ELF: %w", err)
	}
	for _, p := range f.Progs {
		if p.Type != elf.PT_NOTE || p.Filesz > 1<<20 {
			continue
		}
		notes := make([]byte, p.Filesz)
		if _, err := p.ReadAt(notes, 0); err != nil {
			return fmt.Errorf("kernel ELF notes: %w", err)
		}
		if hasXenNote(notes, f.ByteOrder, xenNotePhys32Entry) {
			return nil
		}
	}
	return ErrNoPVHNote
}

// hasXenNote walks ELF notes: name size, descriptor size, type, then both
// padded to 4 bytes.
func hasXenNote(notes []byte, order binary.ByteOrder, want uint32) bool {
	for len(notes) >= 12 {
		nameBytes := uint64(order.Uint32(notes))
		descBytes := uint64(order.Uint32(notes[4:]))
		kind := order.Uint32(notes[8:])
		notes = notes[12:]
		descAt := (nameBytes + 3) &^ 3
		next := descAt + (descBytes+3)&^3
		if next > uint64(len(notes)) {
			return false
		}
		if kind == want && string(bytes.TrimRight(notes[:nameBytes], "\x00")) == "Xen" {
			return true
		}
		notes = notes[next:]
	}
	return false
}
