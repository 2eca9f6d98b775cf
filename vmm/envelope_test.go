package vmm

import (
	"bytes"
	"encoding/binary"
	"errors"
	"testing"

	"github.com/fineline-vmm/fineline/vmm/kvm"
)

func TestEnvelope(t *testing.T) {
	type value struct{ A int }
	good, err := seal(value{7})
	if err != nil {
		t.Fatal(err)
	}
	var v value
	if err := open(good, &v); err != nil || v.A != 7 {
		t.Fatalf("round trip: %v %v", v, err)
	}
	for at := range good { // any damaged byte is noticed
		bad := append([]byte(nil), good...)
		bad[at] ^= 0x40
		if err := open(bad, &v); !errors.Is(err, ErrCorrupt) && !errors.Is(err, ErrVersion) {
			t.Errorf("byte %d changed: %v", at, err)
		}
		if err := open(good[:at], &v); !errors.Is(err, ErrCorrupt) {
			t.Errorf("cut after %d bytes: %v", at, err)
		}
	}
}

// TestSavedFormIsCapped: what no destination would take is refused at the source, before it stops for good.
func TestSavedFormIsCapped(t *testing.T) {
	if _, err := seal(make([]byte, MaxSavedBytes)); err == nil {
		t.Error("sealed more than MaxSavedBytes")
	}
	if _, err := seal(make([]byte, MaxSavedBytes/4*3-1024)); err != nil { // in base64 just below
		t.Error(err)
	}
}

func FuzzEnvelope(f *testing.F) {
	good, err := (&state{kernel: &kvm.VMState{}, vcpus: []*kvm.VCPUState{{XSave: make([]byte, 8)}}}).seal()
	if err != nil {
		f.Fatal(err)
	}
	if s, err := unsealState(good); err != nil || len(s.vcpus) != 1 {
		f.Fatal(s, err)
	}
	f.Add(good[envelopeHeader:])
	f.Add(good[envelopeHeader : len(good)-1])
	f.Fuzz(func(t *testing.T, content []byte) { // must not panic
		sealed, err := wrap(append(make([]byte, envelopeHeader), content...))
		if err != nil {
			t.Skip(err)
		}
		if _, err := unsealState(sealed); err != nil && !errors.Is(err, ErrCorrupt) {
			t.Error(err)
		}
		var d description
		_ = open(sealed, &d)
		_ = open(content, &d)
	})
}

// TestStatePartsAreBounded: a state must not stand for more than its bytes.
func TestStatePartsAreBounded(t *testing.T) {
	good, err := (&state{kernel: &kvm.VMState{}, vcpus: []*kvm.VCPUState{{}}}).seal()
	if err != nil {
		t.Fatal(err)
	}
	content := good[envelopeHeader:]
	head := partHeader + int(binary.LittleEndian.Uint32(content))
	vm := head + partHeader + int(binary.LittleEndian.Uint32(content[head:]))
	for name, bad := range map[string][]byte{
		"no part":       {},
		"half a length": content[:head+2],
		"half a part":   content[:len(content)-1],
		"no kernel":     content[:head],
		"a short form":  append(content[:head:head], 1, 0, 0, 0, 7),
		"many vCPUs":    append(content[:vm:vm], bytes.Repeat(content[vm:], MaxCPUs+1)...),
	} {
		sealed, err := wrap(append(make([]byte, envelopeHeader), bad...))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := unsealState(sealed); !errors.Is(err, ErrCorrupt) {
			t.Errorf("%s: %v, want ErrCorrupt", name, err)
		}
	}
}
