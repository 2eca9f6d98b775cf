package power

import (
	"errors"
	"testing"
)

// kbc drives a controller as a driver does.
type kbc struct {
	*I8042
	resets int
}

func newKBC() *kbc {
	k := &kbc{}
	k.I8042 = NewI8042(func(Event) { k.resets++ })
	return k
}

func (k *kbc) status() byte {
	p := make([]byte, 1)
	k.Command().Read(0, p)
	return p[0]
}

func (k *kbc) data() byte {
	p := make([]byte, 1)
	k.Data().Read(0, p)
	return p[0]
}

func TestI8042Answers(t *testing.T) {
	tests := []struct {
		name string
		cmd  byte
		data []byte
		want byte
	}{
		{"self-test", cmdSelfTest, nil, selfTestOK},
		{"configuration", cmdReadConfig, nil, configDefault},
		{"no keyboard", cmdTestKeyboard, nil, linesStuck},
		{"no mouse", cmdTestAux, nil, linesStuck},
		{"input port", cmdReadInput, nil, 0},
		{"output port", cmdReadOutput, nil, outputDefault},
		{"keyboard buffer", cmdWriteKbdBuf, []byte{0x42}, 0x42},
		{"mouse loop", cmdWriteAuxBuf, []byte{0x5a}, 0x5a},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			k := newKBC()
			k.Command().Write(0, []byte{tt.cmd})
			if len(tt.data) > 0 {
				k.Data().Write(0, tt.data)
			}
			// The mouse's bit (5) must never be there.
			if s := k.status(); s&(kbcOutputFull|1<<1|1<<5|kbcUnlocked) != kbcOutputFull|kbcUnlocked {
				t.Errorf("status %#x", s)
			}
			if got := k.data(); got != tt.want {
				t.Errorf("data %#x, want %#x", got, tt.want)
			}
			if k.status()&kbcOutputFull != 0 || k.resets != 0 {
				t.Error("buffer still full, or a reset")
			}
		})
	}
}

func TestI8042Config(t *testing.T) {
	k := newKBC()
	steps := []struct {
		cmd  byte
		data []byte
		want byte
	}{
		{cmdWriteConfig, []byte{0xff}, 0x7f},
		{0xae, nil, 0x6f},
		{0xa8, nil, 0x4f},
		{0xad, nil, 0x5f},
		{0xa7, nil, 0x7f},
		{cmdWriteConfig, []byte{0x47}, 0x47},
	}
	for _, s := range steps {
		k.Command().Write(0, []byte{s.cmd})
		k.Data().Write(0, s.data)
		k.Command().Write(0, []byte{cmdReadConfig})
		if got := k.data(); got != s.want {
			t.Errorf("after %#x %v: %#x, want %#x", s.cmd, s.data, got, s.want)
		}
	}
}

func TestI8042Resets(t *testing.T) {
	tests := []struct {
		name string
		cmd  byte
		data []byte
		want int
	}{
		{"pulse", 0xfe, nil, 1},
		{"pulse all", 0xf0, nil, 1},
		{"pulse none", 0xff, nil, 0},
		{"output port low", cmdWriteOutput, []byte{0x02}, 1},
		{"output port high", cmdWriteOutput, []byte{0x03}, 0},
		{"unknown", 0x99, nil, 0},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			k := newKBC()
			k.Command().Write(0, []byte{tt.cmd})
			k.Data().Write(0, tt.data)
			if k.resets != tt.want {
				t.Errorf("%d resets, want %d", k.resets, tt.want)
			}
		})
	}
}

func TestI8042Ignores(t *testing.T) {
	k := newKBC()
	k.Data().Write(0, []byte{0xf2}) // "identify" to the keyboard
	k.Command().Write(0, []byte{0x99})
	if m := k.Metrics(); m.DataIgnored != 1 || m.UnknownCommand != 1 || k.status()&kbcOutputFull != 0 {
		t.Errorf("metrics %+v, status %#x", m, k.status())
	}
}

func TestI8042SaveRestore(t *testing.T) {
	a, b := newKBC(), newKBC()
	a.Command().Write(0, []byte{cmdSelfTest, cmdWriteConfig})
	if err := b.Restore(a.State()); err != nil {
		t.Fatal(err)
	}
	b.Data().Write(0, []byte{0x01})
	if b.State().Config != 0x01 || b.data() != selfTestOK {
		t.Errorf("state %+v", b.State())
	}
	for _, s := range []I8042State{{Config: 0x80}, {Command: 0xaa}} {
		if err := b.Restore(s); !errors.Is(err, ErrState) {
			t.Errorf("%+v: %v", s, err)
		}
	}
}
