package api

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"unicode/utf8"
)

// decode reads one JSON object with known, distinct keys and nothing after it. It is
// stricter than encoding/json, which takes a repeated key (the last wins), a key in the wrong
// case and broken UTF-8 in silence: two readers of such a body may see different requests.
func decode(body []byte, v any) error {
	if len(bytes.TrimSpace(body)) == 0 {
		return errors.New("the body is empty: send a JSON object")
	}
	if !utf8.Valid(body) {
		return errors.New("the body is not UTF-8")
	}
	if err := checkKeys(body); err != nil {
		return fmt.Errorf("the body is not the JSON expected: %w", err)
	}
	d := json.NewDecoder(bytes.NewReader(body))
	d.DisallowUnknownFields()
	if err := d.Decode(v); err != nil {
		return fmt.Errorf("the body is not the JSON expected: %w", err)
	}
	return nil
}

func checkKeys(body []byte) error {
	d := json.NewDecoder(bytes.NewReader(body))
	if t, err := d.Token(); err != nil {
		return err
	} else if t != json.Delim('{') {
		return errors.New("it must be an object")
	}
	if err := checkObject(d); err != nil {
		return err
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return errors.New("something follows the object")
	}
	return nil
}

// checkObject reads on from an opening brace to the closing one.
func checkObject(d *json.Decoder) error {
	seen := map[string]bool{}
	for d.More() {
		t, err := d.Token()
		if err != nil {
			return err
		}
		key, ok := t.(string)
		switch {
		case !ok:
			return errors.New("a key must be a string")
		case key != strings.ToLower(key): // all our keys are lower case
			return fmt.Errorf("unknown field %q", key)
		case seen[key]:
			return fmt.Errorf("field %q is given twice", key)
		}
		seen[key] = true
		if err := checkValue(d, key); err != nil {
			return err
		}
	}
	_, err := d.Token()
	return err
}

// checkValue reads the value of a field: a scalar, or a list of flat objects.
func checkValue(d *json.Decoder, key string) error {
	t, err := d.Token()
	switch {
	case err != nil:
		return err
	case t == json.Delim('{'):
		return fmt.Errorf("field %q: no field takes an object", key)
	case t != json.Delim('['):
		return nil
	}
	for d.More() {
		switch t, err := d.Token(); {
		case err != nil:
			return err
		case t == json.Delim('['):
			return fmt.Errorf("field %q: no list holds a list", key)
		case t == json.Delim('{'):
			if err := checkObject(d); err != nil {
				return err
			}
		}
	}
	_, err = d.Token()
	return err
}
