package protocol

import (
	"bytes"
	"errors"
	"io"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestMessagesComeBack(t *testing.T) {
	var b bytes.Buffer
	want := Request{ID: 7, Op: OpAdd, Session: 1, Ranges: []Range{{Address: 1<<63 | 1, Bytes: 64}}}
	if err := Write(&b, want); err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(b.String(), `"8000000000000001"`) {
		t.Errorf("an address as a number: %s", b.String())
	}
	got, err := NewReader(&b, MaxRequestBytes).NextRequest()
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

// TestALargestPartFits: what a server may send, a client can read.
func TestALargestPartFits(t *testing.T) {
	r := Report{More: true, Present: 1 << 60}
	for range MaxPages {
		r.Pages = append(r.Pages, Page{Address: ^Hex(0), Lines: ^Hex(0), ChangedBytes: 1<<32 - 1, Flags: 255})
	}
	var b bytes.Buffer
	if err := Write(&b, Response{ID: ^uint64(0), Report: &r}); err != nil {
		t.Fatal(err)
	}
	if b.Len() > MaxResponseBytes {
		t.Errorf("%d bytes, more than %d", b.Len(), MaxResponseBytes)
	}
}

func TestMalformed(t *testing.T) {
	for name, line := range map[string]string{
		"text": "hello\n", "long": `{"op":"` + strings.Repeat("x", MaxRequestBytes) + `"}` + "\n", "hex": `{"ranges":[{"address":"xyz"}]}` + "\n",
		"ranges": `{"ranges":[` + strings.Repeat(`{},`, MaxRanges) + `{}]}` + "\n", "negative": `{"id":-1}`,
	} {
		if _, err := NewReader(strings.NewReader(line), MaxRequestBytes).NextRequest(); !Malformed(err) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := NewReader(strings.NewReader(""), MaxRequestBytes).NextRequest(); !errors.Is(err, io.EOF) || Malformed(err) {
		t.Errorf("the end: %v", err)
	}
}

func FuzzRequest(f *testing.F) {
	f.Add([]byte(`{"id":1,"op":"add","session":1,"ranges":[{"address":"7f00","bytes":"40"}]}` + "\n{}\n"))
	f.Add([]byte("{\"id\":1e99}\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		r := NewReader(bytes.NewReader(data), 1<<10)
		for {
			q, err := r.NextRequest()
			if err != nil {
				return
			}
			var b bytes.Buffer
			if err := Write(&b, q); err != nil {
				t.Fatal(err)
			}
			again, err := NewReader(&b, 1<<20).NextRequest()
			if err != nil || again.ID != q.ID || again.Op != q.Op || len(again.Ranges) != len(q.Ranges) {
				t.Fatalf("%+v came back as %+v, %v", q, again, err)
			}
		}
	})
}
