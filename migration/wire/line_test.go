package wire

import (
	"bytes"
	"errors"
	"testing"
)

func TestLineFormat(t *testing.T) {
	const line = 0x0123456789abcd
	content := bytes.Repeat([]byte{7}, lineBytes)
	request := AppendRequestLine(nil, line)
	if want := []byte{0xcd, 0xab, 0x89, 0x67, 0x45, 0x23, 0x01, 0}; !bytes.Equal(request, want) {
		t.Errorf("%x", request)
	}
	if got, err := DecodeRequestLine(request); got != line || err != nil {
		t.Errorf("%#x, %v", got, err)
	}
	answer := AppendLine(nil, line, content)
	if !bytes.Equal(answer, append(request, content...)) {
		t.Errorf("%x", answer)
	}
	got, back, err := DecodeLine(answer)
	if got != line || !bytes.Equal(back, content) || err != nil {
		t.Errorf("%#x, %x, %v", got, back, err)
	}
	var out bytes.Buffer
	if err := NewWriter(&out).Bytes(TypeLine, answer); err != nil || out.Len() != LineFrameBytes {
		t.Errorf("a frame of %d bytes, %v", out.Len(), err)
	}
}

func TestLineMalformed(t *testing.T) {
	far := AppendRequestLine(nil, maxLineNumbers)
	for _, payload := range [][]byte{nil, far[:7], append(far[:7:7], 0, 0), far} {
		if line, err := DecodeRequestLine(payload); !errors.Is(err, ErrProtocol) {
			t.Errorf("%x: line %#x, %v", payload, line, err)
		}
	}
	good := AppendLine(nil, 1, make([]byte, lineBytes))
	for _, payload := range [][]byte{nil, good[:71], append(good[:72:72], 0), AppendLine(nil, maxLineNumbers, make([]byte, lineBytes))} {
		if line, _, err := DecodeLine(payload); !errors.Is(err, ErrProtocol) {
			t.Errorf("%d bytes: line %#x, %v", len(payload), line, err)
		}
	}
}
