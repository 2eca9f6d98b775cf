package power

import (
	"encoding/json"
	"errors"
	"reflect"
	"testing"
	"time"
)

// rig is a power block with everything around it visible.
type rig struct {
	*Device
	events []Event
	level  bool
	now    time.Duration
}

func newRig() *rig {
	r := &rig{now: time.Hour} // the origin must not matter
	r.Device = New(func(e Event) { r.events = append(r.events, e) }, r, func() time.Duration { return r.now })
	return r
}

func (r *rig) Set(high bool) { r.level = high }

func (r *rig) read(off uint64, n int) (v uint32) {
	p := make([]byte, n)
	r.Read(off, p)
	for i, b := range p {
		v |= uint32(b) << (8 * i)
	}
	return v
}

func (r *rig) write16(off uint64, v uint16) { r.Write(off, []byte{byte(v), byte(v >> 8)}) }

func TestControl(t *testing.T) {
	tests := []struct {
		name   string
		writes []uint16
		events []Event
		bad    uint64
		read   uint32
	}{
		{"as QEMU's users", []uint16{0x2000}, []Event{Poweroff}, 0, 0x0001},
		{"as Linux, in two writes", []uint16{0x0001, 0x2001}, []Event{Poweroff}, 0, 0x0001},
		{"type without enable", []uint16{0x1401}, nil, 0, 0x1401},
		{"a state that is not offered", []uint16{0x3401}, nil, 1, 0x1401},
		{"SCI_EN stays", []uint16{0}, nil, 0, 0x0001},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			r := newRig()
			for _, v := range tt.writes {
				r.write16(4, v)
			}
			if !reflect.DeepEqual(r.events, tt.events) || r.Metrics().BadSleepTypes != tt.bad {
				t.Errorf("events %v, metrics %+v", r.events, r.Metrics())
			}
			if got := r.read(4, 2); got != tt.read {
				t.Errorf("control reads %#x, want %#x", got, tt.read)
			}
		})
	}
}

func TestSleepByByte(t *testing.T) {
	r := newRig()
	r.Write(5, []byte{0x20})
	if len(r.events) != 1 {
		t.Errorf("events %v", r.events)
	}
}

func TestPowerButton(t *testing.T) {
	r := newRig()
	r.PressPowerButton()
	if r.level {
		t.Error("SCI without its enable")
	}
	r.write16(2, statusPowerButton)
	if !r.level || r.read(0, 4) != statusPowerButton<<16|statusPowerButton {
		t.Errorf("level %v, event block %#x", r.level, r.read(0, 4))
	}
	r.write16(0, 0) // zeros clear nothing
	if !r.level {
		t.Error("SCI fell")
	}
	r.write16(0, statusPowerButton)
	if r.level || r.read(0, 2) != 0 {
		t.Errorf("level %v, status %#x after clearing", r.level, r.read(0, 2))
	}
}

func TestTimer(t *testing.T) {
	r := newRig()
	for _, tt := range []struct {
		at   time.Duration
		want uint32
	}{
		{0, 0},
		{time.Second, TimerHz},
		{2 * time.Second, 2 * TimerHz},
		{time.Hour, 3600 * TimerHz & 0xffffff},
		{100 * 24 * time.Hour, uint32(uint64(100*24*3600*TimerHz) & 0xffffff)},
	} {
		r.now = time.Hour + tt.at
		if got := r.read(8, 4); got != tt.want {
			t.Errorf("timer after %v is %#x, want %#x", tt.at, got, tt.want)
		}
	}
}

func TestTimerStatus(t *testing.T) {
	r := newRig()
	r.write16(2, statusTimer)
	r.now += 2400 * time.Millisecond // bit 23 sets after 2.34 s
	if r.read(0, 2) != statusTimer || !r.level {
		t.Errorf("status %#x, level %v", r.read(0, 2), r.level)
	}
	r.write16(0, statusTimer)
	if r.read(0, 2) != 0 || r.level {
		t.Error("status did not clear")
	}
	r.now += 2400 * time.Millisecond // and clears again
	if r.read(0, 2) != statusTimer {
		t.Error("the second change is not seen")
	}
}

func TestReserved(t *testing.T) {
	r := newRig()
	r.Write(6, []byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff})
	if r.read(6, 2) != 0 || r.read(8, 4) != 0 {
		t.Error("reserved bytes or the timer could be written")
	}
}

func TestResetControl(t *testing.T) {
	r := newRig()
	port := r.ResetControl()
	port.Write(0, []byte{0x02})
	if len(r.events) != 0 {
		t.Fatal("reset without the trigger bit")
	}
	port.Write(0, []byte{ResetValue})
	p := make([]byte, 1)
	port.Read(0, p)
	if !reflect.DeepEqual(r.events, []Event{Reset}) || p[0] != 0x02 {
		t.Errorf("events %v, register %#x", r.events, p[0])
	}
}

func TestSaveRestore(t *testing.T) {
	a := newRig()
	a.write16(2, statusPowerButton)
	a.write16(4, 0x1400)
	a.PressPowerButton()
	a.now += 10 * time.Second
	before := a.read(8, 4)
	raw, err := json.Marshal(a.State())
	if err != nil {
		t.Fatal(err)
	}
	var s State
	if err := json.Unmarshal(raw, &s); err != nil {
		t.Fatal(err)
	}
	b := newRig()
	b.now = 77 * time.Minute
	if err := b.Restore(s); err != nil {
		t.Fatal(err)
	}
	if got := b.read(8, 4); got != before {
		t.Errorf("timer is %#x after restore, was %#x", got, before)
	}
	if !b.level || b.State() != s {
		t.Errorf("level %v, state %+v, want %+v", b.level, b.State(), s)
	}
	b.Reset()
	if b.level || b.read(0, 4) != 0 || b.read(8, 4) != before {
		t.Error("reset leaves events or stops the timer")
	}
}

func TestRestoreRefuses(t *testing.T) {
	for name, s := range map[string]State{
		"status":  {Status: 2},
		"enable":  {Enable: 0x8000},
		"control": {Control: controlSleepEnable},
		"reset":   {Reset: resetTrigger},
		"elapsed": {ElapsedNS: -1},
	} {
		r := newRig()
		if err := r.Restore(s); !errors.Is(err, ErrState) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestDefaults(t *testing.T) {
	d := New(nil, nil, nil)
	d.PressPowerButton()
	p := make([]byte, SizeBytes)
	d.Read(0, p)
	if Poweroff.String() != "poweroff" || Reset.String() != "reset" || Event(0).String() != "invalid" {
		t.Error("event names")
	}
}
