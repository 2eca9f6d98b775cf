package vmm

import (
	"encoding/binary"
	"encoding/json"
	"fmt"

	"github.com/fineline-vmm/fineline/vmm/kvm"
)

// The content of a saved state is a list of parts, each with its length in bytes before it (4
// bytes, little endian): stateHead as JSON, then each vCPU in package kvm's binary form.

// stateHead is all of a state but its vCPUs.
type stateHead struct {
	Resume  bool         `json:"resume"`
	Kernel  *kvm.VMState `json:"kernel_devices"`
	Devices deviceStates `json:"devices"`
}

const partHeader = 4

// seal returns the saved form.
func (s *state) seal() ([]byte, error) {
	head, err := json.Marshal(stateHead{Resume: s.resume, Kernel: s.kernel, Devices: s.devices})
	if err != nil {
		return nil, err
	}
	content := binary.LittleEndian.AppendUint32(nil, uint32(len(head)))
	content = append(content, head...)
	for _, v := range s.vcpus {
		at := len(content)
		if content, err = v.AppendBinary(append(content, make([]byte, partHeader)...)); err != nil {
			return nil, err
		}
		binary.LittleEndian.PutUint32(content[at:], uint32(len(content)-at-partHeader))
	}
	return wrap(content)
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
	if head.Kernel == nil {
		return nil, fmt.Errorf("%w: no in-kernel devices", ErrCorrupt)
	}
	s := &state{resume: head.Resume, kernel: head.Kernel, devices: head.Devices}
	for len(content) > 0 {
		if len(s.vcpus) == MaxCPUs {
			return nil, fmt.Errorf("%w: more than %d vCPUs", ErrCorrupt, MaxCPUs)
		}
		if part, content, err = cutPart(content); err != nil {
			return nil, err
		}
		v := new(kvm.VCPUState)
		if err := v.UnmarshalBinary(part); err != nil {
			return nil, fmt.Errorf("%w: vCPU %d: %w", ErrCorrupt, len(s.vcpus), err)
		}
		s.vcpus = append(s.vcpus, v)
	}
	return s, nil
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
