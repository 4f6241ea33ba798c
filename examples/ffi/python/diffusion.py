"""libdiffusion for Python: every function, struct, constant and callback type, made from libdiffusion-api.json.

    dm = diffusion.Library("libdiffusion.so", "libdiffusion-api.json")
    options = dm.options("dm_unet_options", num_levels=2)
    net = dm.create("dm_unet_create", None, options)
    dm.dm_net_destroy(net)

Nothing but the standard library is needed. A failed call raises Error with the library's message. Handles are plain
pointers: destroy them, in the reverse order of their creation.
"""
import array
import ctypes
import json

VALUES = {
    "int32_t": ctypes.c_int32, "uint32_t": ctypes.c_uint32, "int64_t": ctypes.c_int64, "uint64_t": ctypes.c_uint64,
    "uint8_t": ctypes.c_uint8, "float": ctypes.c_float, "double": ctypes.c_double,
}


class Error(Exception):
    """A status other than DM_OK."""

    def __init__(self, status, message):
        super().__init__(message)
        self.status = status


class Library:
    def __init__(self, library, api):
        with open(api, encoding="utf-8") as file:
            self.api = json.load(file)
        self.c = ctypes.CDLL(library)
        self.types = dict(VALUES)
        for entry in self.api["types"]:  # names of integers; the others are structs that stay unknown
            if entry["type"] in VALUES:
                self.types[entry["name"]] = VALUES[entry["type"]]
        for entry in self.api["callbacks"]:
            parameters = [self.type_of(p["type"]) for p in entry["params"]]
            self.types[entry["name"]] = ctypes.CFUNCTYPE(self.type_of(entry["returns"]), *parameters)
        for entry in self.api["structs"]:
            self.types[entry["name"]] = self.struct(entry)
        for entry in self.api["constants"]:
            setattr(self, entry["name"], entry["value"])
        for entry in self.api["functions"]:
            setattr(self, entry["name"], self.function(entry))

    def type_of(self, name):
        if name == "void":
            return None
        if name == "const char *":
            return ctypes.c_char_p
        if name.endswith("]"):
            element, _, length = name[:-1].partition("[")
            return self.type_of(element) * int(length)
        return ctypes.c_void_p if name.endswith("*") else self.types[name]

    def struct(self, entry):
        fields = [(f["name"], self.type_of(f["type"])) for f in entry["fields"]]
        made = type(entry["name"], (ctypes.Structure,), {"_fields_": fields})
        for field in entry["fields"]:
            if getattr(made, field["name"]).offset != field["offset"]:
                raise TypeError(f"{entry['name']}.{field['name']}: not at offset {field['offset']}")
        if ctypes.sizeof(made) != entry["size"]:
            raise TypeError(f"{entry['name']}: expected {entry['size']} bytes, got {ctypes.sizeof(made)}")
        return made

    def function(self, entry):
        call = getattr(self.c, entry["name"])
        call.argtypes = [self.type_of(p["type"]) for p in entry["params"]]
        call.restype = self.type_of(entry["returns"])
        if entry["returns"] == "dm_status" and entry["name"] != "dm_last_status":
            call.errcheck = self.check
        return call

    def check(self, status, function, arguments):
        if status != self.DM_OK:
            raise Error(status, self.dm_last_error().decode())
        return status

    def options(self, name, **values):
        """An option struct with the defaults of the library and these fields set."""
        made = self.types[name]()
        getattr(self, name + "_init")(ctypes.byref(made), ctypes.sizeof(made))
        made.kept = values  # what fields point to lives as long as the struct
        for field, value in values.items():
            pointer = isinstance(value, ctypes.Array)
            setattr(made, field, ctypes.cast(value, ctypes.c_void_p) if pointer else value)
        return made

    def create(self, function, *arguments):
        """Calls a function whose last parameter receives a handle, and returns the handle."""
        out = ctypes.c_void_p()
        passed = [ctypes.byref(a) if isinstance(a, ctypes.Structure) else a for a in arguments]
        getattr(self, function)(*passed, ctypes.byref(out))
        return out

    def wrap(self, values, *shape):
        """A tensor over an array.array of type f, d or q; no copy, so keep the array."""
        dtype = {"f": self.DM_DTYPE_F32, "d": self.DM_DTYPE_F64, "q": self.DM_DTYPE_I64}[values.typecode]
        address, count = values.buffer_info()
        if count != product_of(shape):
            raise ValueError(f"{count} numbers for the shape {shape}")
        return self.create("dm_tensor_wrap", None, address, dtype, len(shape), (ctypes.c_int64 * len(shape))(*shape), None)


def product_of(shape):
    product = 1
    for size in shape:
        product *= size
    return product


def zeros(typecode, *shape):
    return array.array(typecode, bytes(array.array(typecode).itemsize * product_of(shape)))
