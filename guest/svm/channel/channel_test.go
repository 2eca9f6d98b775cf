package channel

import (
	"bytes"
	"errors"
	"io"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestFramesArriveAsSent(t *testing.T) {
	var stream bytes.Buffer
	c := New(&stream)
	want := Command{Argv: []string{"a", "b c"}, Env: []string{"X=1"}, Dir: "/tmp"}
	if err := c.SendJSON(KindRun, want); err != nil {
		t.Fatal(err)
	}
	large := bytes.Repeat([]byte{0xff, 0, '\n'}, MaxPayloadBytes/3)
	if err := c.Send(KindOutput, large); err != nil {
		t.Fatal(err)
	}
	if err := c.Send(KindKill, nil); err != nil {
		t.Fatal(err)
	}

	var got Command
	if err := c.ReceiveJSON(KindRun, &got); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("command (-want +got):\n%s", diff)
	}
	if kind, payload, err := c.Receive(); kind != KindOutput || !bytes.Equal(payload, large) || err != nil {
		t.Errorf("output: kind %d, %d bytes, %v", kind, len(payload), err)
	}
	if kind, payload, err := c.Receive(); kind != KindKill || len(payload) != 0 || err != nil {
		t.Errorf("kill: kind %d, %d bytes, %v", kind, len(payload), err)
	}
	if _, _, err := c.Receive(); !errors.Is(err, io.EOF) {
		t.Errorf("end: %v, want EOF", err)
	}
}

func TestReceiveRefuses(t *testing.T) {
	for _, tt := range []struct {
		name  string
		bytes []byte
		want  error
	}{
		{"nothing", nil, io.EOF},
		{"half a header", []byte{1, 0}, io.ErrUnexpectedEOF},
		{"no payload", []byte{1, 0, 0, 0, byte(KindOutput)}, io.ErrUnexpectedEOF},
		{"half a payload", []byte{2, 0, 0, 0, byte(KindOutput), 'x'}, io.ErrUnexpectedEOF},
		{"kind 0", []byte{0, 0, 0, 0, 0}, ErrKind},
		{"kind unknown", []byte{0, 0, 0, 0, byte(kindEnd)}, ErrKind},
		{"too large", []byte{1, 0, 0x10, 0, byte(KindOutput)}, ErrTooLarge},
		{"enormous", []byte{0xff, 0xff, 0xff, 0xff, byte(KindOutput)}, ErrTooLarge},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, _, err := New(bytes.NewBuffer(tt.bytes)).Receive()
			if !errors.Is(err, tt.want) {
				t.Errorf("got %v, want %v", err, tt.want)
			}
		})
	}
}

func TestSendRefusesWhatReceiveWould(t *testing.T) {
	err := New(&bytes.Buffer{}).Send(KindOutput, make([]byte, MaxPayloadBytes+1))
	if !errors.Is(err, ErrTooLarge) {
		t.Errorf("got %v, want %v", err, ErrTooLarge)
	}
}

func TestReceiveJSONWrongKind(t *testing.T) {
	c := New(&bytes.Buffer{})
	if err := c.SendJSON(KindExit, Exit{Code: 3}); err != nil {
		t.Fatal(err)
	}
	if err := c.ReceiveJSON(KindHello, &Hello{}); !errors.Is(err, ErrKind) {
		t.Errorf("got %v, want %v", err, ErrKind)
	}
}

func FuzzReceive(f *testing.F) {
	f.Add([]byte{2, 0, 0, 0, byte(KindRun), '{', '}'})
	f.Add([]byte{0xff, 0xff, 0xff, 0xff, 1})
	f.Fuzz(func(t *testing.T, data []byte) {
		c := New(bytes.NewBuffer(data))
		for {
			kind, payload, err := c.Receive()
			if err != nil {
				return
			}
			if kind == 0 || kind >= kindEnd || len(payload) > len(data) {
				t.Fatalf("kind %d with %d bytes from %d", kind, len(payload), len(data))
			}
		}
	})
}
