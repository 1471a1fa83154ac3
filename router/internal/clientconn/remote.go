package clientconn

import (
	"net"
	"net/netip"
)

// From says where the client is if a proxy is between; before the connection is served.
func (c *Conn) From(a netip.Addr) {
	if at, ok := c.tcp.RemoteAddr().(*net.TCPAddr); ok && a.IsValid() && at.AddrPort().Addr().Unmap().WithZone("") != a {
		c.from = a.String()
	}
}

// Remote is the client's address: as a proxy says, or as the socket knows it.
func (c *Conn) Remote() string {
	if c.from != "" {
		return c.from
	}
	return c.tcp.RemoteAddr().String()
}
