package clientconn

import "unicode/utf8"

// decoder finds the first byte that cannot be UTF-8 (RFC 3629).
type decoder struct {
	left     uint8 // continuation bytes that must come
	low, top uint8 // what the next of them may be
}

func (d *decoder) between() bool { return d.left == 0 }

func (d *decoder) next(b byte) bool {
	if d.left > 0 {
		if b < d.low || b > d.top {
			return false
		}
		d.left--
		d.low, d.top = 0x80, 0xbf
		return true
	}
	d.low, d.top = 0x80, 0xbf
	switch {
	case b < utf8.RuneSelf:
	case b < 0xc2:
		return false
	case b < 0xe0:
		d.left = 1
	case b < 0xf0:
		d.left = 2
		switch b {
		case 0xe0:
			d.low = 0xa0 // else a shorter form would do
		case 0xed:
			d.top = 0x9f // surrogates
		}
	case b < 0xf5:
		d.left = 3
		switch b {
		case 0xf0:
			d.low = 0x90
		case 0xf4:
			d.top = 0x8f // U+10FFFF is the last one
		}
	default:
		return false
	}
	return true
}
