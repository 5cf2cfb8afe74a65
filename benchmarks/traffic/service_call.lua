-- The traffic of one service calling another: 512 paths, and on every request its own request id and trace.
-- All requests are written once, at the start, so that the load generator has nothing left to compute.
local paths, distinct = 512, 16384
local requests, at = {}, 0

local function hex(digits)
   local text = {}
   for i = 1, digits do text[i] = string.format("%x", math.random(0, 15)) end
   return table.concat(text)
end

function init(arguments)
   math.randomseed(20240607)
   local token = hex(320)
   for i = 1, distinct do
      local n = (i * 193) % paths
      local trace, span = hex(32), hex(16)
      requests[i] = wrk.format("GET", string.format("/api/v1/accounts/%d/orders/%d?page=%d", n, n * 7919, n % 10), {
         ["Host"] = "orders.shop.svc.cluster.local:8080",
         ["User-Agent"] = "okhttp/4.12.0",
         ["Accept"] = "application/json, text/plain, */*",
         ["Accept-Encoding"] = "gzip, deflate, br",
         ["Accept-Language"] = "en-GB,en;q=0.8",
         ["Authorization"] = "Bearer " .. token,
         ["Content-Type"] = "application/json",
         ["X-Request-Id"] = string.format("%s-%s-4%s-a%s-%s", hex(8), hex(4), hex(3), hex(3), hex(12)),
         ["Traceparent"] = string.format("00-%s-%s-01", trace, span),
         ["X-B3-TraceId"] = trace,
         ["X-B3-SpanId"] = span,
         ["X-B3-Sampled"] = "1",
         ["X-Client-Version"] = "storefront/7.31.2",
      })
   end
end

function request()
   at = at % distinct + 1
   return requests[at]
end
