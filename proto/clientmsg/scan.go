package clientmsg

// scanner walks a JSON text (RFC 8259) byte by byte without building anything. It is written here rather than
// taken from encoding/json because it bounds the nesting, says where values begin and end, so that they stay
// byte for byte, and runs on every record.
type scanner struct {
	s []byte
	i int
	// max is how many arrays and objects may be open at once; at most len(kinds)*64.
	max int
}

// embeddable reports whether value, which is valid UTF-8, is a JSON text that stays one inside a message.
func embeddable(value []byte) bool {
	sc := scanner{s: value, max: MaxNesting}
	if !sc.value() {
		return false
	}
	sc.space()
	return sc.i == len(sc.s)
}

func (sc *scanner) space() {
	for sc.i < len(sc.s) {
		switch sc.s[sc.i] {
		case ' ', '\t', '\n', '\r':
			sc.i++
		default:
			return
		}
	}
}

// byte steps over c, if it is next.
func (sc *scanner) byte(c byte) bool {
	if sc.i < len(sc.s) && sc.s[sc.i] == c {
		sc.i++
		return true
	}
	return false
}

// value steps over one value and the space before it. It keeps what is open in a bit set, one bit an object
// or an array, so that no input makes it recurse.
func (sc *scanner) value() bool {
	var kinds [(MaxNesting + 2 + 63) / 64]uint64
	depth := 0
	for {
		// Here a value must begin.
		sc.space()
		if sc.i == len(sc.s) {
			return false
		}
		switch c := sc.s[sc.i]; c {
		case '{', '[':
			if depth == sc.max {
				return false
			}
			sc.i++
			sc.space()
			if sc.byte(c + 2) { // the closing bracket's code is the opening one's plus 2
				break
			}
			if c == '{' {
				kinds[depth/64] |= 1 << (depth % 64)
				if !sc.name() {
					return false
				}
			} else {
				kinds[depth/64] &^= 1 << (depth % 64)
			}
			depth++
			continue
		case '"':
			if !sc.str() {
				return false
			}
		case 't':
			if !sc.word("true") {
				return false
			}
		case 'f':
			if !sc.word("false") {
				return false
			}
		case 'n':
			if !sc.word("null") {
				return false
			}
		default:
			if !sc.number() {
				return false
			}
		}
		// A value has ended: close what ends with it.
		for {
			if depth == 0 {
				return true
			}
			object := kinds[(depth-1)/64]&(1<<((depth-1)%64)) != 0
			sc.space()
			if sc.byte(',') {
				if object {
					sc.space()
					if !sc.name() {
						return false
					}
				}
				break
			}
			if (object && !sc.byte('}')) || (!object && !sc.byte(']')) {
				return false
			}
			depth--
		}
	}
}

// name steps over an object's next name and its colon.
func (sc *scanner) name() bool {
	if !sc.str() {
		return false
	}
	sc.space()
	return sc.byte(':')
}

func (sc *scanner) word(w string) bool {
	if len(sc.s)-sc.i < len(w) || string(sc.s[sc.i:sc.i+len(w)]) != w {
		return false
	}
	sc.i += len(w)
	return true
}

func (sc *scanner) str() bool {
	if !sc.byte('"') {
		return false
	}
	for i := sc.i; i < len(sc.s); i++ {
		switch c := sc.s[i]; {
		case c == '"':
			sc.i = i + 1
			return true
		case c < ' ':
			return false
		case c == '\\':
			i++
			if i == len(sc.s) {
				return false
			}
			switch sc.s[i] {
			case '"', '\\', '/', 'b', 'f', 'n', 'r', 't':
			case 'u':
				if len(sc.s)-i <= 4 {
					return false
				}
				for range 4 {
					i++
					if !isHex(sc.s[i]) {
						return false
					}
				}
			default:
				return false
			}
		}
	}
	return false
}

func isHex(c byte) bool {
	return '0' <= c && c <= '9' || 'a' <= c && c <= 'f' || 'A' <= c && c <= 'F'
}

func (sc *scanner) digits() bool {
	from := sc.i
	for sc.i < len(sc.s) && '0' <= sc.s[sc.i] && sc.s[sc.i] <= '9' {
		sc.i++
	}
	return sc.i > from
}

func (sc *scanner) number() bool {
	sc.byte('-')
	if !sc.byte('0') && !sc.digits() {
		return false
	}
	if sc.byte('.') && !sc.digits() {
		return false
	}
	if sc.byte('e') || sc.byte('E') {
		if !sc.byte('+') {
			sc.byte('-')
		}
		return sc.digits()
	}
	return true
}
