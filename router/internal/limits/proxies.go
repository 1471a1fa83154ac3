package limits

import (
	"fmt"
	"net/http"
	"net/netip"
	"slices"
	"strings"
)

// The headers that a proxy may name its client in.
const (
	ForwardedFor = "X-Forwarded-For"
	Forwarded    = "Forwarded" // RFC 7239
	RealIP       = "X-Real-IP"
)

// Proxies says which peers are believed when they name another address as the client's.
type Proxies struct {
	trusted []netip.Prefix
	header  string
}

// ParseProxies reads networks and addresses, and the header that those proxies write. Only that one is looked at:
// a proxy passes the others on as the client sent them.
func ParseProxies(networks []string, header string) (Proxies, error) {
	p := Proxies{}
	for _, h := range []string{ForwardedFor, Forwarded, RealIP} {
		if strings.EqualFold(header, h) || header == "" && h == ForwardedFor {
			p.header = h
		}
	}
	if p.header == "" {
		return p, fmt.Errorf("proxies' header %q is none of %s, %s and %s", header, ForwardedFor, Forwarded, RealIP)
	}
	for _, n := range networks {
		prefix, err := netip.ParsePrefix(n)
		if err != nil {
			a, single := netip.ParseAddr(n)
			if single != nil {
				return p, fmt.Errorf("trusted proxy %q is neither an address nor a network such as 10.0.0.0/8", n)
			}
			prefix = netip.PrefixFrom(a, a.BitLen())
		}
		if a := prefix.Addr(); a.Is4In6() {
			if prefix.Bits() < 96 {
				return p, fmt.Errorf("trusted proxy %q holds all of IPv4; name an IPv4 network", n)
			}
			prefix = netip.PrefixFrom(a.Unmap(), prefix.Bits()-96)
		}
		p.trusted = append(p.trusted, prefix.Masked())
	}
	return p, nil
}

func (p Proxies) trusts(a netip.Addr) bool {
	return slices.ContainsFunc(p.trusted, func(n netip.Prefix) bool { return n.Contains(a) })
}

// Client is the address that a request comes from: the peer's, or, where the peer is a trusted proxy, the last one
// that no trusted proxy has. What stands before that one is the client's own word. It is the zero address only where
// the peer has none.
func (p Proxies) Client(r *http.Request) netip.Addr {
	at := peer(r.RemoteAddr)
	if !p.trusts(at) {
		return at
	}
	hops := p.hops(r.Header)
	for i := len(hops) - 1; i >= 0; i-- {
		a, ok := hop(hops[i])
		if !ok {
			return at // what is before it was written by nobody we know
		}
		if at = a; !p.trusts(at) {
			return at
		}
	}
	return at
}

func peer(addr string) netip.Addr {
	ap, err := netip.ParseAddrPort(addr)
	if err != nil {
		return netip.Addr{}
	}
	return ap.Addr().Unmap().WithZone("")
}

// hops lists what the header says, the hop next to us last.
func (p Proxies) hops(h http.Header) []string {
	lines := h.Values(p.header)
	if p.header == RealIP {
		return lines[max(0, len(lines)-1):]
	}
	var all []string
	for _, line := range lines {
		for part := range strings.SplitSeq(line, ",") {
			if p.header == Forwarded {
				part = forwardedFor(part)
			}
			all = append(all, part)
		}
	}
	return all
}

// forwardedFor is the parameter "for" of one element of RFC 7239, "" for none.
func forwardedFor(element string) string {
	for pair := range strings.SplitSeq(element, ";") {
		name, value, ok := strings.Cut(strings.TrimSpace(pair), "=")
		if ok && strings.EqualFold(name, "for") {
			return strings.Trim(value, `"`)
		}
	}
	return ""
}

// hop reads an address as proxies write it: with or without brackets and port.
func hop(text string) (netip.Addr, bool) {
	text = strings.TrimSpace(text)
	if ap, err := netip.ParseAddrPort(text); err == nil {
		return ap.Addr().Unmap().WithZone(""), true
	}
	if inner, ok := strings.CutPrefix(text, "["); ok {
		text = strings.TrimSuffix(inner, "]")
	}
	a, err := netip.ParseAddr(text)
	return a.Unmap().WithZone(""), err == nil
}
