package vmm

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
)

// A saved form is its content in an envelope: one JSON value for what describes a machine, and for
// its state what savedstate.go says.
//
//	offset  size  content
//	     0     8  magic "FINELINE"
//	     8     4  version of the content, little endian
//	    12     4  length of the content in bytes
//	    16     4  CRC-32C of the content
//	    20     …  the content
//
// Version rule: a reader takes its own version only. State describes a CPU to the
// last register; a field that one side does not know is a lost register.
const (
	envelopeMagic   = "FINELINE"
	envelopeHeader  = 20
	envelopeVersion = 4
)

// MaxSavedBytes caps a saved form, header and all, before it is written and before it is decoded: 254
// vCPUs with the largest xsave area and their MSRs, and the FPGA's contexts with all that they may hold, stay below it.
const MaxSavedBytes = 16 << 20

// ErrCorrupt is wrapped by every refusal of saved bytes that are damaged.
var ErrCorrupt = errors.New("saved state is damaged")

// ErrVersion is wrapped by the refusal of saved bytes of another version.
var ErrVersion = errors.New("saved state is of another version of Fineline")

// castagnoli is a call, since the first one anywhere takes 2 ms: not in the way of a guest's start.
func castagnoli() *crc32.Table { return crc32.MakeTable(crc32.Castagnoli) }

func seal(v any) ([]byte, error) {
	content, err := json.Marshal(v)
	if err != nil {
		return nil, err
	}
	return wrap(append(make([]byte, envelopeHeader), content...))
}

// wrap completes an envelope whose content is in place behind room for the header.
func wrap(out []byte) ([]byte, error) {
	if len(out) > MaxSavedBytes {
		return nil, fmt.Errorf("the saved form would have %d bytes, the limit is %d", len(out), MaxSavedBytes)
	}
	content := out[envelopeHeader:]
	copy(out, envelopeMagic)
	binary.LittleEndian.PutUint32(out[8:], envelopeVersion)
	binary.LittleEndian.PutUint32(out[12:], uint32(len(content)))
	binary.LittleEndian.PutUint32(out[16:], crc32.Checksum(content, castagnoli()))
	return out, nil
}

func open(sealed []byte, v any) error {
	content, err := unwrap(sealed)
	if err != nil {
		return err
	}
	return decodeJSON(content, v)
}

// unwrap returns the content, a part of sealed.
func unwrap(sealed []byte) ([]byte, error) {
	if len(sealed) < envelopeHeader || string(sealed[:8]) != envelopeMagic {
		return nil, fmt.Errorf("%w: it does not begin with %q", ErrCorrupt, envelopeMagic)
	}
	if got := binary.LittleEndian.Uint32(sealed[8:]); got != envelopeVersion {
		return nil, fmt.Errorf("%w: it has version %d, this build reads %d", ErrVersion, got, envelopeVersion)
	}
	content := sealed[envelopeHeader:]
	if want := binary.LittleEndian.Uint32(sealed[12:]); uint64(want) != uint64(len(content)) || len(sealed) > MaxSavedBytes {
		return nil, fmt.Errorf("%w: %d bytes of content where the header says %d (at most %d)", ErrCorrupt, len(content), want, MaxSavedBytes-envelopeHeader)
	}
	if crc32.Checksum(content, castagnoli()) != binary.LittleEndian.Uint32(sealed[16:]) {
		return nil, fmt.Errorf("%w: checksum", ErrCorrupt)
	}
	return content, nil
}

func decodeJSON(content []byte, v any) error {
	dec := json.NewDecoder(bytes.NewReader(content))
	dec.DisallowUnknownFields()
	if err := dec.Decode(v); err != nil {
		return fmt.Errorf("%w: %.200s", ErrCorrupt, err.Error()) // it may quote a peer at length
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return fmt.Errorf("%w: more than one value", ErrCorrupt)
	}
	return nil
}
