local BASE64 = 'ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/'

local function base64(bytes)
  local parts = {}
  for at = 1, #bytes, 3 do
    local a, b, c = string.byte(bytes, at, at + 2)
    local group = a * 65536 + (b or 0) * 256 + (c or 0)
    for place = 0, 3 do
      local digit = math.floor(group / 64 ^ (3 - place)) % 64
      local is_padding = (place == 2 and not b) or (place == 3 and not c)
      parts[#parts + 1] = is_padding and '=' or string.sub(BASE64, digit + 1, digit + 1)
    end
  end
  return table.concat(parts)
end

local function two_bytes(number, is_big_endian)
  local high, low = math.floor(number / 256), number % 256
  if is_big_endian then return string.char(high, low) end
  return string.char(low, high)
end

-- Text as the results' streams keep it, which is zlib's format in base64. A script cannot compress: this is the
-- format's own way of leaving data as it is, in one block of at most 65535 bytes.
local function encode_text(text)
  text = string.sub(text, 1, 65535)
  local a, b = 1, 0
  for at = 1, #text do
    a = (a + string.byte(text, at)) % 65521
    b = (b + a) % 65521
  end
  local block = '\1' .. two_bytes(#text) .. two_bytes(65535 - #text) .. text
  return base64('\120\1' .. block .. two_bytes(b, true) .. two_bytes(a, true))
end
