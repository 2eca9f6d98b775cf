package vmm

import (
	"errors"
	"testing"
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
	good, err := seal(&state{})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(good)
	f.Add(good[:envelopeHeader])
	f.Fuzz(func(_ *testing.T, sealed []byte) {
		var s state
		_ = open(sealed, &s) // must not panic
		var d description
		_ = open(sealed, &d)
	})
}
