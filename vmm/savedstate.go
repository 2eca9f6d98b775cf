package vmm

import (
	"encoding"
	"encoding/binary"
	"encoding/json"
	"fmt"

	"github.com/fineline-vmm/fineline/vmm/kvm"
)

// The content of a saved state is a list of parts, each with its length in bytes before it (4
// bytes, little endian): stateHead as JSON, what KVM holds for the VM, and each vCPU, these in package
// kvm's binary forms.

// stateHead is all of a state but what KVM holds.
type stateHead struct {
	Resume  bool         `json:"resume"`
	Devices deviceStates `json:"devices"`
}

const (
	partHeader = 4
	// usualVCPUBytes is enough for a vCPU with AVX-512: a buffer of that size is not copied.
	usualVCPUBytes = 12 << 10
)

// seal returns the saved form.
func (s *state) seal() ([]byte, error) {
	head, err := json.Marshal(stateHead{Resume: s.resume, Devices: s.devices})
	if err != nil {
		return nil, err
	}
	out := make([]byte, envelopeHeader, envelopeHeader+len(head)+(1+len(s.vcpus))*usualVCPUBytes)
	out = append(binary.LittleEndian.AppendUint32(out, uint32(len(head))), head...)
	forms := []encoding.BinaryAppender{s.kernel}
	for _, v := range s.vcpus {
		forms = append(forms, v)
	}
	for _, form := range forms {
		at := len(out)
		if out, err = form.AppendBinary(append(out, make([]byte, partHeader)...)); err != nil {
			return nil, err
		}
		binary.LittleEndian.PutUint32(out[at:], uint32(len(out)-at-partHeader))
	}
	return wrap(out)
}

// unsealState is the counterpart of seal. The error wraps ErrCorrupt or ErrVersion.
func unsealState(sealed []byte) (*state, error) {
	content, err := unwrap(sealed)
	if err != nil {
		return nil, err
	}
	part, content, err := cutPart(content)
	if err != nil {
		return nil, err
	}
	var head stateHead
	if err := decodeJSON(part, &head); err != nil {
		return nil, err
	}
	s := &state{resume: head.Resume, devices: head.Devices, kernel: new(kvm.VMState)}
	if content, err = unsealPart(content, s.kernel); err != nil {
		return nil, err
	}
	for len(content) > 0 {
		if len(s.vcpus) == MaxCPUs {
			return nil, fmt.Errorf("%w: more than %d vCPUs", ErrCorrupt, MaxCPUs)
		}
		v := new(kvm.VCPUState)
		if content, err = unsealPart(content, v); err != nil {
			return nil, fmt.Errorf("vCPU %d: %w", len(s.vcpus), err)
		}
		s.vcpus = append(s.vcpus, v)
	}
	return s, nil
}

func unsealPart(content []byte, into encoding.BinaryUnmarshaler) (rest []byte, err error) {
	part, rest, err := cutPart(content)
	if err != nil {
		return nil, err
	}
	if err := into.UnmarshalBinary(part); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrCorrupt, err)
	}
	return rest, nil
}

// cutPart takes the first part off.
func cutPart(content []byte) (part, rest []byte, err error) {
	if len(content) < partHeader {
		return nil, nil, fmt.Errorf("%w: %d bytes where a part begins", ErrCorrupt, len(content))
	}
	size := uint64(binary.LittleEndian.Uint32(content))
	content = content[partHeader:]
	if size > uint64(len(content)) {
		return nil, nil, fmt.Errorf("%w: a part of %d bytes in %d", ErrCorrupt, size, len(content))
	}
	return content[:size], content[size:], nil
}
