"""Running requests that go on at another replica: live migration of their KV, and who asks for it."""
