package jsonlist

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
)

// ErrTooLong is wrapped by the refusal of an array with more elements than allowed.
var ErrTooLong = errors.New("list is too long")

// Decode returns the elements of the JSON array raw, at most limit. It refuses unknown
// fields, since a decoder's setting does not reach into an UnmarshalJSON.
func Decode[T any](raw []byte, limit int) ([]T, error) {
	if string(raw) == "null" {
		return nil, nil
	}
	dec := json.NewDecoder(bytes.NewReader(raw))
	dec.DisallowUnknownFields()
	if first, err := dec.Token(); err != nil || first != json.Delim('[') {
		return nil, errors.Join(errors.New("not a list"), err)
	}
	var list []T
	for dec.More() {
		if len(list) == limit {
			return nil, fmt.Errorf("%w: more than %d elements", ErrTooLong, limit)
		}
		var element T
		if err := dec.Decode(&element); err != nil {
			return nil, err
		}
		list = append(list, element)
	}
	_, err := dec.Token() // the closing bracket
	return list, err
}
