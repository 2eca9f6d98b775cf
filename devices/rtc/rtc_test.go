package rtc

import (
	"encoding/json"
	"errors"
	"testing"
	"time"
)

// rig is a clock whose host time stands until a test moves it.
type rig struct {
	*Device
	t   *testing.T
	now time.Time
}

var start = time.Date(2026, time.March, 1, 17, 4, 59, 500e6, time.FixedZone("", 3600)) // a Sunday; 16:04:59.5 UTC

func newRig(t *testing.T) *rig {
	r := &rig{t: t, now: start}
	r.Device = New(func() time.Time { return r.now })
	return r
}

func (r *rig) get(reg byte) byte {
	r.Write(0, []byte{reg})
	p := make([]byte, 1)
	r.Read(1, p)
	return p[0]
}

func (r *rig) set(reg, v byte) {
	r.Write(0, []byte{reg})
	r.Write(1, []byte{v})
}

// date reads all fields in the order century, year, month, day, weekday, hour, minute, second.
func (r *rig) date() (v [8]byte) {
	for i, reg := range []byte{CenturyReg, regYear, regMonth, regDay, regWeekday, regHours, regMinutes, regSeconds} {
		v[i] = r.get(reg)
	}
	return v
}

func (r *rig) want(what string, got, want byte) {
	r.t.Helper()
	if got != want {
		r.t.Errorf("%s = %#02x, want %#02x", what, got, want)
	}
}

func TestModes(t *testing.T) {
	morning := start.Add(-16 * time.Hour) // 00:04:59
	noon := start.Add(-4 * time.Hour)     // 12:04:59
	tests := []struct {
		name string
		b    byte
		at   time.Time
		want [8]byte
	}{
		{"BCD, 24 hours", b24Hours, start, [8]byte{0x20, 0x26, 0x03, 0x01, 0x01, 0x16, 0x04, 0x59}},
		{"binary, 24 hours", b24Hours | bBinary, start, [8]byte{20, 26, 3, 1, 1, 16, 4, 59}},
		{"BCD, 12 hours", 0, start, [8]byte{0x20, 0x26, 0x03, 0x01, 0x01, 0x84, 0x04, 0x59}},
		{"binary, 12 hours", bBinary, start, [8]byte{20, 26, 3, 1, 1, 0x84, 4, 59}},
		{"after midnight", 0, morning, [8]byte{0x20, 0x26, 0x03, 0x01, 0x01, 0x12, 0x04, 0x59}},
		{"noon", 0, noon, [8]byte{0x20, 0x26, 0x03, 0x01, 0x01, 0x92, 0x04, 0x59}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			r := newRig(t)
			r.now = tt.at
			r.set(regB, tt.b)
			if got := r.date(); got != tt.want {
				t.Errorf("date % x, want % x", got, tt.want)
			}
			// Write it back, a year later, and read it again.
			r.set(regB, tt.b|bSet)
			r.set(regHours, r.get(regHours))
			r.set(regYear, map[bool]byte{true: 27, false: 0x27}[tt.b&bBinary != 0])
			r.set(regB, tt.b)
			tt.want[1]++
			tt.want[4]++ // and a weekday later
			if got := r.date(); got != tt.want {
				t.Errorf("date % x after setting, want % x", got, tt.want)
			}
			if r.Metrics().InvalidFields != 0 {
				t.Errorf("metrics %+v", r.Metrics())
			}
		})
	}
}

func TestFixedRegisters(t *testing.T) {
	r := newRig(t)
	r.want("A", r.get(regA), aDefault)
	r.want("B", r.get(regB), bDefault)
	r.want("D", r.get(regD), dValid)
	r.set(regD, 0)
	r.want("D", r.get(regD), dValid)
	r.set(0x40, 0x5a)
	r.want("memory", r.get(0x40), 0x5a)
	r.want("memory with NMI masked", r.get(0x40|indexNMI), 0x5a)
	p := make([]byte, 2)
	r.Read(0, p)
	r.want("index", p[0], 0xff)
	r.want("data of a wide read", p[1], 0x5a)
	r.Write(0, []byte{0x41, 0xa5}) // a wide write is index, then data
	r.want("memory after a wide write", r.get(0x41), 0xa5)
}

func TestUpdate(t *testing.T) {
	r := newRig(t)
	r.get(regC)
	tests := []struct {
		fraction      time.Duration
		a, c, seconds byte
	}{
		{0, aDefault, 0, 0x59},
		{499755 * time.Microsecond, aDefault, 0, 0x59},
		{499757 * time.Microsecond, aDefault | aUIP, 0, 0x59},
		{499999 * time.Microsecond, aDefault | aUIP, 0, 0x59},
		{500 * time.Millisecond, aDefault, cUpdateEnded, 0x00},
		{600 * time.Millisecond, aDefault, 0, 0x00},
	}
	for _, tt := range tests {
		r.now = start.Add(tt.fraction)
		r.want("A after "+tt.fraction.String(), r.get(regA), tt.a)
		r.want("C after "+tt.fraction.String(), r.get(regC), tt.c)
		r.want("seconds after "+tt.fraction.String(), r.get(regSeconds), tt.seconds)
	}
}

// TestLinuxSet is mc146818_set_time of Linux: SET, divider reset, fields, and back.
func TestLinuxSet(t *testing.T) {
	r := newRig(t)
	b, a := r.get(regB), r.get(regA)
	r.set(regB, b|bSet)
	r.set(regA, a|0x70)
	r.now = r.now.Add(time.Hour) // nothing moves meanwhile
	r.want("minutes", r.get(regMinutes), 0x04)
	r.want("A", r.get(regA), a|0x70)
	for reg, v := range map[byte]byte{
		CenturyReg: 0x19, regYear: 0x99, regMonth: 0x12, regDay: 0x31, regHours: 0x23, regMinutes: 0x59, regSeconds: 0x59,
	} {
		r.set(reg, v)
	}
	r.set(regB, b)
	r.set(regA, a)
	want := [8]byte{0x19, 0x99, 0x12, 0x31, 0x06, 0x23, 0x59, 0x59}
	r.now = r.now.Add(499 * time.Millisecond)
	if got := r.date(); got != want {
		t.Errorf("date % x, want % x", got, want)
	}
	// Half a second after the divider's start the next second begins.
	r.now = r.now.Add(time.Millisecond)
	if got, want := r.date(), [8]byte{0x20, 0x00, 0x01, 0x01, 0x07, 0, 0, 0}; got != want {
		t.Errorf("date % x, want % x", got, want)
	}
}

func TestSetKeepsFraction(t *testing.T) {
	r := newRig(t)
	r.set(regB, bDefault|bSet)
	r.set(regB, bDefault)
	r.now = r.now.Add(500 * time.Millisecond)
	r.want("seconds", r.get(regSeconds), 0)
}

// A write without SET counts at once, and fields out of range carry over.
func TestWriteWhileRunning(t *testing.T) {
	r := newRig(t)
	r.set(regMinutes, 0x59)
	r.want("minutes", r.get(regMinutes), 0x59)
	r.set(regMinutes, 0x61)
	r.want("hours", r.get(regHours), 0x17)
	r.want("minutes", r.get(regMinutes), 0x01)
	r.want("invalid", byte(r.Metrics().InvalidFields), 1)
	r.set(regMonth, 0xff) // not BCD either
	r.want("invalid", byte(r.Metrics().InvalidFields), 3)
}

// Dates far from the host's do not fit a time.Duration.
func TestFarDates(t *testing.T) {
	for _, century := range []byte{0x00, 0x19, 0x99} {
		r := newRig(t)
		r.set(CenturyReg, century)
		r.want("century", r.get(CenturyReg), century)
		r.want("year", r.get(regYear), 0x26)
		r.now = r.now.Add(500 * time.Millisecond)
		r.want("minutes", r.get(regMinutes), 0x05)
	}
	r := newRig(t)
	for _, reg := range []byte{CenturyReg, regYear, regMonth, regDay} {
		r.set(reg, 0)
	}
	r.date() // the year -1: anything but a panic
}

func TestSaveRestore(t *testing.T) {
	for name, prepare := range map[string]func(*rig){
		"running": func(r *rig) { r.set(CenturyReg, 0x18) },
		"held":    func(r *rig) { r.set(regB, bSet); r.set(regDay, 0x31) },
		"updated": func(r *rig) { r.now = r.now.Add(time.Second) },
	} {
		t.Run(name, func(t *testing.T) {
			a, b := newRig(t), newRig(t)
			a.set(0x50, 0x77)
			prepare(a)
			raw, err := json.Marshal(a.State())
			if err != nil {
				t.Fatal(err)
			}
			var s State
			if err := json.Unmarshal(raw, &s); err != nil {
				t.Fatal(err)
			}
			b.now = a.now
			if err := b.Restore(s); err != nil {
				t.Fatal(err)
			}
			if again, _ := json.Marshal(b.State()); string(again) != string(raw) {
				t.Errorf("state changed by restore:\n%s\n%s", raw, again)
			}
			later := a.now.Add(time.Minute)
			a.now, b.now = later, later
			if a.date() != b.date() || b.get(0x50) != 0x77 || a.get(regC) != b.get(regC) {
				t.Errorf("date % x and % x", a.date(), b.date())
			}
		})
	}
}

func TestRestoreRefuses(t *testing.T) {
	good := newRig(t).State()
	for name, change := range map[string]func(*State){
		"memory":  func(s *State) { s.Memory = s.Memory[1:] },
		"UIP":     func(s *State) { s.Memory = append([]byte(nil), s.Memory...); s.Memory[regA] |= aUIP },
		"seconds": func(s *State) { s.OffsetSeconds = 1 << 62 },
		"nanos":   func(s *State) { s.OffsetNanos = 1e9 },
	} {
		s := good
		change(&s)
		if err := newRig(t).Restore(s); !errors.Is(err, ErrState) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestReset(t *testing.T) {
	r := newRig(t)
	r.set(regB, 0x70|bBinary)
	r.set(0x50, 0x77)
	before := r.date()
	r.Device.Reset()
	r.want("B", r.get(regB), bBinary)
	r.want("memory", r.get(0x50), 0x77)
	if r.date() != before {
		t.Error("reset changed the date")
	}
}

// FuzzRTC writes anything and reads everything: no panic, and every own state restores.
func FuzzRTC(f *testing.F) {
	f.Add([]byte{0x0b, 0x82, 0x32, 0x99, 0x09, 0xff, 0x0b, 0x02})
	f.Add([]byte{0x0a, 0x76, 0x04, 0x92, 0x0a, 0x26, 0x0b, 0x00, 0x08, 0x00})
	f.Add([]byte("\vlhhhh2\xff")) // binary century 255
	f.Fuzz(func(t *testing.T, writes []byte) {
		r := newRig(t)
		for ; len(writes) >= 2; writes = writes[2:] {
			r.set(writes[0], writes[1])
			r.now = r.now.Add(time.Duration(writes[1]) * 10 * time.Millisecond)
			for reg := range byte(memoryBytes) {
				r.get(reg)
			}
			if err := r.Restore(r.State()); err != nil {
				t.Fatal(err)
			}
		}
	})
}
