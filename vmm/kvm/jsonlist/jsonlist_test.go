package jsonlist

import (
	"errors"
	"slices"
	"strings"
	"testing"
)

func TestDecode(t *testing.T) {
	type element struct{ A int }
	for _, tt := range []struct {
		raw   string
		want  []element
		fails bool
	}{
		{raw: `null`},
		{raw: `[]`},
		{raw: `[{"A":1},{"A":2}]`, want: []element{{1}, {2}}},
		{raw: `{"A":1}`, fails: true},
		{raw: `7`, fails: true},
		{raw: `[{"A":1}`, fails: true},
		{raw: `[{"B":1}]`, fails: true},
		{raw: ``, fails: true},
	} {
		got, err := Decode[element]([]byte(tt.raw), 2)
		if !slices.Equal(got, tt.want) && !tt.fails || (err != nil) != tt.fails {
			t.Errorf("%s: %v, %v", tt.raw, got, err)
		}
	}
}

func TestDecodeStops(t *testing.T) {
	raw := "[" + strings.Repeat("{},", 1<<20) + "{}]"
	if _, err := Decode[struct{ A [1024]byte }]([]byte(raw), 254); !errors.Is(err, ErrTooLong) {
		t.Error(err)
	}
}
