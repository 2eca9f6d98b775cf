package debugexit

import "testing"

func TestWrite(t *testing.T) {
	tests := []struct {
		name string
		off  uint64
		p    []byte
		want uint32
	}{
		{"byte", 0, []byte{0}, 1},
		{"success as kvm-unit-tests", 0, []byte{0, 0, 0, 0}, 1},
		{"word", 0, []byte{0x34, 0x12}, 0x1234<<1 | 1},
		{"dword", 0, []byte{0x10, 0, 0, 0}, 0x21},
		{"top bit is lost", 0, []byte{0, 0, 0, 0x80}, 1},
		{"any offset", 3, []byte{5}, 11},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var got []uint32
			d := New(func(code uint32) { got = append(got, code) })
			d.Write(tt.off, tt.p)
			if len(got) != 1 || got[0] != tt.want {
				t.Errorf("requests %v, want one of %d", got, tt.want)
			}
		})
	}
}

func TestReadAndState(t *testing.T) {
	d := New(func(uint32) { t.Error("a read must not exit") })
	p := []byte{1, 2, 3, 4}
	d.Read(0, p)
	if [4]byte(p) != [4]byte{} {
		t.Errorf("read %v, want zeros", p)
	}
	if err := d.Restore(d.State()); err != nil {
		t.Error(err)
	}
}
